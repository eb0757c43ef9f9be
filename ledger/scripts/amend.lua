-- Change fields of one hash together, or nothing when one of them is no longer what the caller saw. ARGV: hash key,
-- number of fields, then field, what was seen ('' for nothing), what to write ('' to remove)...; the audit's line as
-- field count and field, value... (0 for none), its longest length; then per history: key, text, how many to keep.
-- Answers 1, or 0 when somebody else was faster.
local key, count = P .. ARGV[1], tonumber(ARGV[2])
for n = 0, count - 1 do
  local at = 3 + 3 * n
  if (redis.call('HGET', key, ARGV[at]) or '') ~= ARGV[at + 1] then return 0 end
end
for n = 0, count - 1 do
  local at = 3 + 3 * n
  if ARGV[at + 2] == '' then
    redis.call('HDEL', key, ARGV[at])
  else
    redis.call('HSET', key, ARGV[at], ARGV[at + 2])
  end
end
local at = 3 + 3 * count
local words = tonumber(ARGV[at])
if words > 0 then
  redis.call('XADD', P .. 'audit', 'MAXLEN', '~', ARGV[at + 1 + words], '*', unpack(ARGV, at + 1, at + words))
end
for n = at + 2 + words, #ARGV, 3 do
  redis.call('RPUSH', P .. ARGV[n], n2s(WALL) .. ' ' .. ARGV[n + 1])
  redis.call('LTRIM', P .. ARGV[n], -tonumber(ARGV[n + 2]), -1)
end
return 1
