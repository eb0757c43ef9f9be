-- Take events out of those that were refused, each once whoever asks, and put them back into the inbox. ARGV: how many,
-- then per event its line among the refused and its bytes, or '' for one that is over. Answers 1 for each that was there.
local answers = {}
for i = 1, tonumber(ARGV[1]) do
  local line, raw = ARGV[2 * i], ARGV[2 * i + 1]
  local was_there = redis.call('LREM', P .. 'inbox:refused', 1, line)
  if was_there == 1 and raw ~= '' then redis.call('RPUSH', P .. 'inbox', raw) end
  answers[i] = was_there
end
return answers
