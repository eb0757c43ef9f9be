-- Say what this worker is and really holds. ARGV: lease (us), worker, threads, number of conversations, (account, conversation)..., (id, fence)...
-- Answers the ids that it no longer holds. What is not renewed comes back after one lease.
-- A worker that drains brings no threads. As soon as it says so, what it still sends keeps nobody else away: it holds a
-- connection of its account until it ends, but no thread that others could have.
until_somebody_looks()
local TO = NOW + tonumber(ARGV[1])
local worker, count = ARGV[2], tonumber(ARGV[4])
holding(tonumber(ARGV[1]), redis.call('GET', P .. 'holding'))
redis.call('ZADD', P .. 'workers', TO, worker)
local drains = ARGV[3] == '0'
local begins_to = drains and redis.call('HGET', P .. 'worker:' .. worker, 'threads') ~= '0'
redis.call('HSET', P .. 'worker:' .. worker, 'threads', ARGV[3], 'seen', NOW, 'conversations', count)
redis.call('EXPIRE', P .. 'worker:' .. worker, 86400)
local i = 5
for _ = 1, count do
  local account, conversation = ARGV[i], ARGV[i + 1]
  redis.call('ZADD', P .. 'sending:' .. account, 'XX', TO, conversation)
  if drains then redis.call('HSET', account_key(account), 'drains', TO) end
  if begins_to then
    redis.call('ZREM', P .. 'unproven', conversation)
    redis.call('ZREM', P .. 'troubled', conversation)
    redis.call('HDEL', account_key(account), 'full', 'stalled')
    make_all_due(account)
  end
  i = i + 2
end
local lost = {}
for j = i, #ARGV, 2 do
  local r = redis.call('HMGET', P .. 'delivery:' .. ARGV[j], 'state', 'fence')
  if r[2] == ARGV[j + 1] and (r[1] == 'leased' or r[1] == 'sending') then
    redis.call('ZADD', P .. 'lease', TO, ARGV[j])
  else
    lost[#lost + 1] = ARGV[j]
  end
end
return lost
