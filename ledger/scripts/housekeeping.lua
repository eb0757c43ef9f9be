-- What every claim does first, each bounded: take back expired leases, promote what is due, expire, try parked accounts again,
-- forget what is over.
local WORKER, WANTED, BATCH, LEASE = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local BOUND, CRASHES, KEPT, NAME = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
vouched(tonumber(ARGV[9] or 0), tonumber(ARGV[10] or 0), tonumber(ARGV[11] or 0))
local TO = NOW + LEASE
-- What this script reads of what claims of before wrote down: outage, threads of the fleet, who watches the clock.
local remembered = redis.call('MGET', P .. 'holding', P .. 'fresh:fleet', P .. 'fresh:timekeeper')
local HOLD = holding(LEASE, remembered[1])

-- The earliest score in an index, read once while nothing changes it: mostly nothing is due anywhere.
local heads = {}
local function head(key)
  if not heads[key] then
    heads[key] = tonumber(redis.call('ZRANGE', P .. key, 0, 0, 'WITHSCORES')[2] or math.huge)
  end
  return heads[key]
end
local function due_in(key)
  if head(key) > NOW then return {} end
  heads = {} -- who works through one index changes others
  return redis.call('ZRANGEBYSCORE', P .. key, '-inf', NOW, 'LIMIT', 0, BOUND)
end

if not HOLD then
  for _, id in ipairs(due_in('lease')) do
    local record = P .. 'delivery:' .. id
    local r = redis.call('HMGET', record, 'state', 'account', 'class', 'conversation', 'on_unknown', 'attempt', 'fence', 'worker')
    redis.call('ZREM', P .. 'lease', id)
    if r[2] and r[4] then redis.call('ZREM', P .. 'sending:' .. r[2], r[4]) end
    if r[4] then redis.call('ZREM', P .. 'troubled', r[4]) end
    if r[1] == 'leased' or r[1] == 'sending' then
      local crashes = redis.call('HINCRBY', record, 'crashes', 1)
      local what = r[1] == 'leased' and 'crashed' or 'unknown'
      note(id, cjson.encode({ what = what, attempt = tonumber(r[6]), account = r[2], worker = r[8] }))
      if r[1] == 'sending' and r[5] == 'hold' then
        redis.call('HSET', record, 'state', 'unknown', 'cause', 'worker_died', 'ended_at', WALL)
        finish(id, 'unknown', false)
      elseif crashes >= CRASHES then
        redis.call('HSET', record, 'state', 'failed', 'cause', 'crashed', 'ended_at', WALL)
        finish(id, 'failed', false)
      else
        redis.call('HSET', record, 'state', 'waiting', 'cause', r[1] == 'sending' and 'outcome_unknown' or 'crashed')
        to_lane(id, r[2], r[3], true)
      end
    end
    if r[2] then make_all_due(r[2]) end
  end
end

-- A paced replay never catches up: who missed the slot (nobody looked, the account stands still) takes one at the end.
local function missed_slot(replay, account, interval, due)
  local key = P .. 'replay:' .. replay
  local a = redis.call('HMGET', account_key(account), 'state', 'fallback')
  local stands = a[1] ~= 'ready' and not a[2]
  if not stands and NOW - due < math.max(interval, SECOND / 4) then return nil end
  local slot = math.max(number(redis.call('HGET', key, 'next')), stands and NOW + SECOND or NOW)
  redis.call('HSET', key, 'next', whole(slot + interval))
  return slot > NOW and slot or nil
end

-- What was tried or deferred before had its turn already: to the head of its lane, the earliest due first.
if head('scheduled') <= NOW then
  heads = {}
  local due = redis.call('ZRANGEBYSCORE', P .. 'scheduled', '-inf', NOW, 'WITHSCORES', 'LIMIT', 0, BOUND)
  local again = {}
  for i = 1, #due, 2 do
    local id, record = due[i], P .. 'delivery:' .. due[i]
    local r = redis.call('HMGET', record, 'state', 'account', 'class', 'attempt', 'deferred', 'replay', 'pace')
    local waits, fresh = r[1] == 'waiting', number(r[4]) == 0
    local slot = waits and fresh and r[7] and missed_slot(r[6], r[2], tonumber(r[7]), tonumber(due[i + 1]))
    if slot then
      redis.call('HSET', record, 'due', whole(slot))
      redis.call('ZADD', P .. 'scheduled', whole(slot), id)
    else
      redis.call('ZREM', P .. 'scheduled', id)
      if waits and fresh and not r[5] then
        to_lane(id, r[2], r[3], false)
      elseif waits then
        again[#again + 1] = { id, r[2], r[3] }
      end
    end
  end
  for i = #again, 1, -1 do to_lane(again[i][1], again[i][2], again[i][3], true) end
end

local function expire(id)
  redis.call('HSET', P .. 'delivery:' .. id, 'state', 'expired', 'ended_at', WALL)
  note(id, cjson.encode({ what = 'expired' }))
  redis.call('ZREM', P .. 'scheduled', id)
  finish(id, 'expired', false)
end

for _, id in ipairs(due_in('deadline')) do
  if redis.call('HGET', P .. 'delivery:' .. id, 'state') == 'waiting' then
    expire(id)
  else -- an attempt is under way: its outcome decides, or the next look does
    redis.call('ZADD', P .. 'deadline', TO, id)
  end
end

-- A parked account whose time has come is tried again: its first mail is the probe.
for _, account in ipairs(due_in('parked')) do
  redis.call('ZREM', P .. 'parked', account)
  if redis.call('HGET', account_key(account), 'state') == 'parked' then make_ready(account, true) end
end

-- What is over is forgotten after its tenant's time, and counted.
if redis.call('HGET', P .. 'keep', '') ~= ARGV[7] then redis.call('HSET', P .. 'keep', '', KEPT) end
local forgotten = {}
for _, id in ipairs(due_in('forget')) do
  gather('ZREM', 'forget', id)
  local r = redis.call('HMGET', P .. 'delivery:' .. id, 'state', 'provider_id')
  if r[1] == 'sent' or r[1] == 'discarded' then
    gather('ZREM', 'ended:' .. r[1], id)
    gather('UNLINK', '', P .. 'delivery:' .. id)
    gather('UNLINK', '', P .. 'history:' .. id)
    gather('UNLINK', '', P .. 'payload:' .. id)
    if r[2] and redis.call('HGET', P .. 'provider', r[2]) == id then gather('HDEL', 'provider', r[2]) end
    forgotten[r[1]] = (forgotten[r[1]] or 0) + 1
  end
end
for state, count in pairs(forgotten) do redis.call('HINCRBY', P .. 'forgotten', state, count) end
