-- Whose turn it is to log in. ARGV: begin|end, account, credential, turn, outcome (good|refused|none, for end).
-- begin answers {'go' | 'busy' | 'stands' | 'stale' | 'spent', seconds}: `stands` when the account is not ready, `stale`
-- when another credential is in force, `spent` when this one was refused so often that it must rest for so many seconds.
local PER_HOUR, TOGETHER = 3, 2
local TURN, AFTERMATH, HOUR = 60 * SECOND, 2 * SECOND, 3600 * SECOND
local account, credential, turn = ARGV[2], ARGV[3], ARGV[4]
until_somebody_looks()
local turns, refused = P .. 'logins:' .. account, P .. 'refused:' .. account .. ':' .. credential

if ARGV[1] == 'end' then
  redis.call('ZREM', turns, turn)
  if ARGV[5] == 'good' then redis.call('UNLINK', refused) end
  if ARGV[5] == 'refused' then
    redis.call('ZADD', refused, NOW, turn)
    redis.call('PEXPIRE', refused, 24 * HOUR / 1000) -- its scores say what counts, whatever Redis' clock does
    redis.call('ZADD', turns, NOW + AFTERMATH, turn) -- nobody else before the account is parked
  end
  return { 'done', 0 }
end

local a = redis.call('HMGET', account_key(account), 'state', 'credential', 'proven')
if a[1] ~= 'ready' then return { 'stands', 0 } end
if a[2] and a[2] ~= credential then return { 'stale', 0 } end
redis.call('ZREMRANGEBYSCORE', refused, '-inf', NOW - HOUR)
redis.call('ZREMRANGEBYSCORE', turns, '-inf', NOW)
local tried = redis.call('ZCARD', refused)
if tried >= PER_HOUR then
  local oldest = tonumber(redis.call('ZRANGE', refused, 0, 0, 'WITHSCORES')[2])
  return { 'spent', math.ceil((oldest + HOUR - NOW) / SECOND) }
end
if redis.call('ZCARD', turns) >= ((a[3] and tried == 0) and TOGETHER or 1) then return { 'busy', 0 } end
redis.call('ZADD', turns, NOW + TURN, turn)
redis.call('PEXPIRE', turns, TURN / 1000)
return { 'go', 0 }
