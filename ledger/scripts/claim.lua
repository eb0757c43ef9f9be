-- Hand out deliveries that are due and whose account has a permit. ARGV: worker, conversations wanted, deliveries a
-- conversation may hold, lease (us), housekeeping bound, crash limit, record lifetime (s), fresh conversation name.
-- Answers {wait (us) until something may be due, {conversation, account, {delivery...}...}...}; a delivery is
-- {id, fence, attempt, crashes, tenant, kind, version, event, message id, deadline, accepted at, on_unknown, payload,
-- masked recipient, class}.
local WORKER, WANTED, BATCH, LEASE = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local BOUND, CRASHES, KEPT, NAME = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
local TO = n2s(NOW + LEASE)
local HOLD = holding(LEASE)

local function reap()
  if HOLD then return end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'lease', '-inf', NOWS, 'LIMIT', 0, BOUND)) do
    local record = P .. 'delivery:' .. id
    local r = redis.call('HMGET', record, 'state', 'account', 'class', 'conversation', 'on_unknown', 'attempt', 'fence', 'worker')
    redis.call('ZREM', P .. 'lease', id)
    if r[2] and r[4] then redis.call('ZREM', P .. 'sending:' .. r[2], r[4]) end
    if r[1] == 'leased' or r[1] == 'sending' then
      local crashes = redis.call('HINCRBY', record, 'crashes', 1)
      local what = r[1] == 'leased' and 'crashed' or 'unknown'
      note(id, cjson.encode({ what = what, attempt = tonumber(r[6]), account = r[2], worker = r[8] }))
      if r[1] == 'sending' and r[5] == 'hold' then
        redis.call('HSET', record, 'state', 'unknown', 'cause', 'worker_died', 'ended_at', NOWS)
        finish(id, 'unknown', false)
      elseif crashes >= CRASHES then
        redis.call('HSET', record, 'state', 'failed', 'cause', 'crashed', 'ended_at', NOWS)
        finish(id, 'failed', false)
      else
        redis.call('HSET', record, 'state', 'waiting', 'cause', r[1] == 'sending' and 'outcome_unknown' or 'crashed')
        to_lane(id, r[2], r[3], true)
      end
    end
    if r[2] then make_all_due(r[2]) end
  end
end

local function promote()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'scheduled', '-inf', NOWS, 'LIMIT', 0, BOUND)) do
    redis.call('ZREM', P .. 'scheduled', id)
    local r = redis.call('HMGET', P .. 'delivery:' .. id, 'state', 'account', 'class', 'attempt')
    if r[1] == 'waiting' then to_lane(id, r[2], r[3], tonumber(r[4]) > 0) end
  end
end

local function expire(id)
  redis.call('HSET', P .. 'delivery:' .. id, 'state', 'expired', 'ended_at', NOWS)
  note(id, cjson.encode({ what = 'expired' }))
  redis.call('ZREM', P .. 'scheduled', id)
  finish(id, 'expired', false)
end

local function expire_overdue()
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. 'deadline', '-inf', NOWS, 'LIMIT', 0, BOUND)) do
    if redis.call('HGET', P .. 'delivery:' .. id, 'state') == 'waiting' then
      expire(id)
    else -- an attempt is under way: its outcome decides, or the next look does
      redis.call('ZADD', P .. 'deadline', TO, id)
    end
  end
end

-- A parked account whose time has come is tried again: its first mail is the probe.
local function unpark()
  for _, account in ipairs(redis.call('ZRANGEBYSCORE', P .. 'parked', '-inf', NOWS, 'LIMIT', 0, BOUND)) do
    redis.call('ZREM', P .. 'parked', account)
    local key = P .. 'account:' .. account
    if redis.call('HGET', key, 'state') == 'parked' then
      redis.call('HSET', key, 'state', 'ready', 'since', NOWS, 'probe', 1)
      make_all_due(account)
    end
  end
end

local function forget()
  for _, state in ipairs({ 'sent', 'discarded' }) do
    local old = redis.call('ZRANGEBYSCORE', P .. 'ended:' .. state, '-inf', n2s(NOW - KEPT * 1000000), 'LIMIT', 0, BOUND)
    for _, id in ipairs(old) do
      gather('ZREM', P .. 'ended:' .. state, id)
      gather('UNLINK', '', P .. 'delivery:' .. id)
      gather('UNLINK', '', P .. 'history:' .. id)
    end
  end
end

-- GCRA: how many may go now, and when the next one may. T: interval, B: burst, tat: theoretical arrival time.
-- A little lateness is made up for, or every late look would lower the rate; `pace` in accounts.py leaves room for it.
local RULES = { { 'second', 4, 1000000 }, { 'minute', 7, 60000000 } }
local function arrival(rule, T, tat) return math.max(tat, NOW - math.min(T / 2, rule[3] * 0.0375)) end
local function allowance(rule, T, B, tat)
  tat = arrival(rule, T, tat)
  local free = (B - 1) * T - (tat - NOW)
  if free < 0 then return 0, tat - (B - 1) * T end
  return math.floor(free / T) + 1, NOW
end

local handed, conversations, pops = {}, 0, 0
local seen = {}

-- What left its lane otherwise (superseded, discarded, moved) is dropped here; one more look is all it may cost.
-- An expired and replayed delivery may stand in its lane twice, and its stale place may outlive the start of a retry.
local function is_here(id, r, account)
  if seen[id] or r[1] ~= 'waiting' or r[13] ~= account then return false end
  return tonumber(r[16] or 0) <= NOW or not redis.call('ZSCORE', P .. 'scheduled', id)
end

local function take(account, class, quota)
  local taken = {}
  for _ = 1, 2 do
    local room = math.min(quota - #taken, WANTED * BATCH + BOUND - pops)
    if room <= 0 then break end
    local ids = redis.call('LPOP', lane(account, class), room)
    if not ids then break end
    pops = pops + #ids
    for _, id in ipairs(ids) do
      local r = redis.call('HMGET', P .. 'delivery:' .. id, 'state', 'fence', 'attempt', 'crashes', 'tenant', 'kind',
        'version', 'event', 'message_id', 'deadline', 'accepted_at', 'on_unknown', 'account', 'recipient', 'class', 'due')
      if is_here(id, r, account) then
        seen[id] = true
        if tonumber(r[10]) <= NOW then
          expire(id)
        else
          taken[#taken + 1] = { id, r }
        end
      end
    end
  end
  return taken
end

local payloads = {}

local function lease(entry, conversation)
  local id, r = entry[1], entry[2]
  local fence, attempt = tonumber(r[2]) + 1, tonumber(r[3]) + 1
  redis.call('HSET', P .. 'delivery:' .. id, 'state', 'leased', 'fence', fence, 'attempt', attempt, 'worker', WORKER,
    'conversation', conversation, 'leased_at', NOWS)
  gather('ZADD', P .. 'lease', TO, id)
  local row = { id, fence, attempt, tonumber(r[4] or 0), r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12], '', r[14] or '',
    r[15] }
  payloads[#payloads + 1] = { P .. 'payload:' .. id, row }
  return row
end

local function fill_in_payloads()
  if #payloads == 0 then return end
  for from = 1, #payloads, SLICE do
    local keys = {}
    for index = from, math.min(from + SLICE - 1, #payloads) do keys[#keys + 1] = payloads[index][1] end
    for index, text in ipairs(redis.call('MGET', unpack(keys))) do payloads[from + index - 1][2][13] = text or '' end
  end
end

-- A delivery that was held by a dying worker travels alone, so that the next crash tells who is to blame.
local function group(taken, account, rooms)
  local per = math.ceil(#taken / rooms)
  local i = 1
  for _ = 1, rooms do
    if i > #taken then break end
    conversations = conversations + 1
    local conversation = NAME .. '.' .. conversations
    local members = { conversation, account }
    for _ = 1, per do
      local entry = taken[i]
      if not entry then break end
      local suspect = tonumber(entry[2][4] or 0) > 0
      if suspect and #members > 2 then break end
      members[#members + 1] = lease(entry, conversation)
      i = i + 1
      if suspect then break end
    end
    redis.call('ZADD', P .. 'sending:' .. account, TO, conversation)
    handed[#handed + 1] = members
  end
  return i - 1
end

local function serve(account, class, share)
  local due = P .. 'due:' .. class
  local a = redis.call('HMGET', P .. 'account:' .. account, 'state', 'until', 'cap', 'second_t', 'second_b', 'second_tat',
    'minute_t', 'minute_b', 'minute_tat', 'probe')
  if a[1] ~= 'ready' then
    redis.call('ZREM', due, account)
    return
  end
  local busy = P .. 'sending:' .. account
  local slots = (a[10] and 1 or tonumber(a[3])) - redis.call('ZCARD', busy)
  if slots <= 0 and not HOLD then slots = slots + redis.call('ZREMRANGEBYSCORE', busy, '-inf', NOWS) end
  if slots <= 0 then
    -- A freed slot makes the account due again; the end of the oldest lease is the fallback.
    redis.call('HSET', P .. 'account:' .. account, 'full', 1)
    local over = tonumber(redis.call('ZRANGE', busy, 0, 0, 'WITHSCORES')[2])
    redis.call('ZADD', due, n2s(math.max(over, HOLD or 0)), account)
    return
  end
  local rooms = math.min(slots, share)
  local quota, again = a[10] and 1 or rooms * BATCH, NOW
  for _, rule in ipairs(RULES) do
    local at = rule[2]
    if a[at] then
      local count, soonest = allowance(rule, tonumber(a[at]), tonumber(a[at + 1]), tonumber(a[at + 2] or 0))
      quota = math.min(quota, count)
      again = math.max(again, soonest)
    end
  end
  if quota <= 0 then
    redis.call('ZADD', due, n2s(again), account)
    return
  end
  local taken = take(account, class, quota)
  local used = 0
  if #taken > 0 then used = group(taken, account, rooms) end
  for i = #taken, used + 1, -1 do
    redis.call('LPUSH', lane(account, class), taken[i][1])
    seen[taken[i][1]] = nil
  end
  if used > 0 then
    for _, rule in ipairs(RULES) do
      local at = rule[2]
      if a[at] then
        local T = tonumber(a[at])
        local tat = arrival(rule, T, tonumber(a[at + 2] or 0)) + used * T
        redis.call('HSET', P .. 'account:' .. account, rule[1] .. '_tat', n2s(tat), 'granted', NAME)
        again = math.max(again, tat - (tonumber(a[at + 1]) - 1) * T)
      end
    end
  end
  if redis.call('LLEN', lane(account, class)) > 0 then
    redis.call('ZADD', due, n2s(again), account)
  else
    redis.call('ZREM', due, account)
  end
end

local function pass(class, limit)
  if limit <= 0 then return end
  local accounts = redis.call('ZRANGEBYSCORE', P .. 'due:' .. class, '-inf', NOWS, 'LIMIT', 0, limit)
  local share = math.ceil(limit / math.max(1, #accounts))
  for _, account in ipairs(accounts) do
    local left = WANTED - conversations
    if left <= 0 then break end
    serve(account, class, math.min(share, left))
  end
end

local function next_due()
  local soonest = nil
  for _, key in ipairs({ 'due:u', 'due:b', 'scheduled', 'lease', 'deadline', 'parked' }) do
    local first = redis.call('ZRANGE', P .. key, 0, 0, 'WITHSCORES')
    if first[2] then
      local at = tonumber(first[2])
      if HOLD and key == 'lease' then at = math.max(at, HOLD) end
      if not soonest or at < soonest then soonest = at end
    end
  end
  return soonest
end

reap()
promote()
expire_overdue()
unpark()
forget()
if WANTED > 0 then
  -- Bulk that has been due for five seconds gets one turn before more urgent mail: never starved, never first.
  local oldest = redis.call('ZRANGE', P .. 'due:b', 0, 0, 'WITHSCORES')
  if oldest[2] and NOW - tonumber(oldest[2]) > 5000000 and WANTED > 1 then pass('b', 1) end
  pass('u', WANTED - conversations)
  pass('b', WANTED - conversations)
end
local soonest = next_due()
local wait = 1000000
if soonest then wait = math.max(0, math.min(wait, soonest - NOW)) end
if WANTED > 0 and soonest and soonest <= NOW and conversations > 0 then wake() end
-- One idle worker watches the clock for all; the others sleep a second and are its stand-ins.
local keeper = redis.call('GET', P .. 'timekeeper')
if conversations >= WANTED then -- no thread is free: somebody else must watch
  if keeper == WORKER then
    redis.call('DEL', P .. 'timekeeper')
    wake()
  end
elseif not keeper or keeper == WORKER then
  redis.call('SET', P .. 'timekeeper', WORKER, 'PX', 1500)
else
  wait = math.max(wait, 1000000)
end
fill_in_payloads()
write_together()
table.insert(handed, 1, wait)
return handed
