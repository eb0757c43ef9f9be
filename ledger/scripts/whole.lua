-- Whole records in one answer. ARGV: with their timelines (0|1), ids... Answers per id its fields and values in turn, and
-- the lines of its timeline when asked for.
local answers = {}
for i = 2, #ARGV do
  answers[#answers + 1] = redis.call('HGETALL', P .. 'delivery:' .. ARGV[i])
  if ARGV[1] == '1' then answers[#answers + 1] = redis.call('LRANGE', P .. 'history:' .. ARGV[i], 0, -1) end
end
return answers
