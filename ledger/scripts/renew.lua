-- Say what this worker is and really holds. ARGV: lease (us), worker, threads, number of conversations, (account, conversation)..., (id, fence)...
-- Answers the ids that it no longer holds. What is not renewed comes back after one lease.
until_somebody_looks()
local TO = NOW + tonumber(ARGV[1])
local worker, count = ARGV[2], tonumber(ARGV[4])
holding(tonumber(ARGV[1]), redis.call('GET', P .. 'holding'))
redis.call('ZADD', P .. 'workers', TO, worker)
redis.call('HSET', P .. 'worker:' .. worker, 'threads', ARGV[3], 'seen', NOW, 'conversations', count)
redis.call('EXPIRE', P .. 'worker:' .. worker, 86400)
local i = 5
for _ = 1, count do
  redis.call('ZADD', P .. 'sending:' .. ARGV[i], 'XX', TO, ARGV[i + 1])
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
