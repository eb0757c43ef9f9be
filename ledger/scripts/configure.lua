-- Write accounts' limits as the claim script needs them. ARGV: registry text, its version, number of accounts, then per
-- account: name, cap, second interval (us, ''), second burst, minute interval (us, ''), minute burst.
-- State and running counts are kept. Repeating is safe. Answers 1 when the registry changed.
local changed = redis.call('HGET', P .. 'registry', 'version') ~= ARGV[2]
redis.call('HSET', P .. 'registry', 'text', ARGV[1], 'version', ARGV[2])
local i = 4
for _ = 1, tonumber(ARGV[3]) do
  local name = ARGV[i]
  local key = P .. 'account:' .. name
  redis.call('HSETNX', key, 'state', 'ready')
  redis.call('HSET', key, 'cap', ARGV[i + 1])
  for index, rule in ipairs({ 'second', 'minute' }) do
    local at = i + 2 * index
    if ARGV[at] == '' then
      redis.call('HDEL', key, rule .. '_t', rule .. '_b', rule .. '_tat')
    else
      redis.call('HSET', key, rule .. '_t', ARGV[at], rule .. '_b', ARGV[at + 1])
    end
  end
  redis.call('SADD', P .. 'accounts', name)
  make_all_due(name)
  i = i + 6
end
return changed and 1 or 0
