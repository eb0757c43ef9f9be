-- The ledger's name and its last sign of life. ARGV: a name if it has none, the name it is known by or ''.
-- Answers its name and the latest sign of life; another ledger than the known one is left alone.
local key = P .. 'dataset'
if ARGV[2] == '' then redis.call('HSETNX', key, 'id', ARGV[1]) end
local name = redis.call('HGET', key, 'id') or ''
local seen = tonumber(redis.call('HGET', key, 'seen') or 0)
if ARGV[2] == '' or name == ARGV[2] then
  seen = math.max(seen, NOW)
  redis.call('HSET', key, 'seen', n2s(seen))
end
return { name, n2s(seen) }
