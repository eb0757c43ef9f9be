-- Hand out deliveries that are due and whose account has a permit. ARGV: worker, conversations wanted, deliveries a
-- conversation may hold, lease (us), housekeeping bound, crash limit, record lifetime (s), fresh conversation name; and
-- WALL and NOW of this worker's last claim (0 for none) with how long (us) ago that was.
-- Answers {wait (us) until something may be due, WALL, NOW, {conversation, account, {delivery...}...}...}, where an empty
-- conversation asks the worker to close what it keeps open for the account; a delivery is
-- {id, fence, attempt, crashes, tenant, kind, version, event, message id, deadline, accepted at, on_unknown, payload,
-- masked recipient, class, packet}; neighbours with the same packet are one mail, and had one permit.
local handed, conversations, pops = {}, 0, 0
local seen = {}

-- What left its lane otherwise (superseded, discarded, moved) is dropped here; one more look is all it may cost.
-- An expired and replayed delivery may stand in its lane twice, and its stale place may outlive the start of a retry.
local function is_here(id, r, account)
  if seen[id] or r[1] ~= 'waiting' or r[13] ~= account then return false end
  return tonumber(r[16] or 0) <= NOW or not redis.call('ZSCORE', P .. 'scheduled', id)
end

-- Who may not be held by a dying worker once more is the only one of its like that a worker holds: what merely stood
-- beside the culprit must not be blamed for the last time. The others look again in a moment.
local reserved
local function last_chance_is_taken(id, crashes)
  if CRASHES < 2 or crashes < CRASHES - 1 then return false end
  local key = P .. 'suspect:' .. WORKER
  local other = reserved or redis.call('GET', key)
  if other and other ~= id then
    local r = redis.call('HMGET', P .. 'delivery:' .. other, 'state', 'worker', 'leased_at')
    local held = r[2] == WORKER and (r[1] == 'leased' or r[1] == 'sending') and NOW - number(r[3]) < 2 * LEASE
    if reserved or held then
      redis.call('HSET', P .. 'delivery:' .. id, 'due', NOW + SECOND / 4)
      redis.call('ZADD', P .. 'scheduled', NOW + SECOND / 4, id)
      heads = {}
      return true
    end
  end
  reserved = id
  redis.call('SET', key, id, 'EX', 3600)
  return false
end

local function look_at(id, account)
  local r = redis.call('HMGET', P .. 'delivery:' .. id, 'state', 'fence', 'attempt', 'crashes', 'tenant', 'kind',
    'version', 'event', 'message_id', 'deadline', 'accepted_at', 'on_unknown', 'account', 'recipient', 'class', 'due', 'packet')
  if not is_here(id, r, account) then return nil end
  seen[id] = true
  if tonumber(r[10]) <= NOW then
    expire(id)
    heads = {}
  elseif not last_chance_is_taken(id, number(r[4])) then
    return { id, r }
  end
  return nil
end

-- Up to `quota` mails from a lane; recipients of one event that shares a mail make one, as long as `size` lets them.
-- What a dying worker held never shares one: the next crash must tell who is to blame.
local function take(account, class, quota, size, most)
  local mails, extra, people = {}, {}, 0
  for round = 1, 4 do
    local last = mails[#mails]
    local open = last and last.packet and size - #last or 0
    local more = round < 4 and quota - #mails or 0 -- the last round only fills the last mail
    local room = math.min(math.max(more, open), WANTED * BATCH + BOUND + size - pops)
    if room <= 0 then break end
    local ids = redis.call('LPOP', lane(account, class), room)
    if not ids then break end
    pops = pops + #ids
    for _, id in ipairs(ids) do
      local entry = look_at(id, account)
      if entry then
        local packet = number(entry[2][4]) == 0 and entry[2][17] or nil
        last = mails[#mails]
        people = people + 1
        if people > most or #extra > 0 then
          extra[#extra + 1] = entry
        elseif packet and last and last.packet == packet and #last < size then
          last[#last + 1] = entry
        elseif #mails < quota then
          mails[#mails + 1] = { entry, packet = packet }
        else
          extra[#extra + 1] = entry
        end
      end
    end
    if #extra > 0 then break end
  end
  return mails, extra
end

local payloads = {}

local function lease(entry, conversation, packet)
  local id, r = entry[1], entry[2]
  local fence, attempt = tonumber(r[2]) + 1, tonumber(r[3]) + 1
  redis.call('HSET', P .. 'delivery:' .. id, 'state', 'leased', 'fence', fence, 'attempt', attempt, 'worker', WORKER,
    'conversation', conversation, 'leased_at', NOW)
  gather('ZADD', 'lease', TO, id)
  local row = { id, fence, attempt, tonumber(r[4] or 0), r[5], r[6], r[7], r[8], r[9], r[10], r[11], r[12], '', r[14] or '',
    r[15], packet }
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

-- A mail that was held by a dying worker travels alone, so that the next crash tells who is to blame.
local function group(mails, account, rooms, troubled, fresh)
  local per = math.ceil(#mails / rooms)
  local used = 0
  for _ = 1, rooms do
    if used >= #mails then break end
    conversations = conversations + 1
    local conversation = NAME .. '.' .. conversations
    local members = { conversation, account }
    for _ = 1, per do
      local mail = mails[used + 1]
      if not mail then break end
      local suspect = tonumber(mail[1][2][4] or 0) > 0
      if suspect and #members > 2 then break end
      local packet = mail.packet and tostring(used) or ''
      for _, entry in ipairs(mail) do members[#members + 1] = lease(entry, conversation, packet) end
      used = used + 1
      if suspect then break end
    end
    redis.call('ZADD', P .. 'sending:' .. account, TO, conversation)
    if troubled then redis.call('ZADD', P .. 'troubled', TO, conversation) end
    if fresh then redis.call('ZADD', P .. 'unproven', NOW, conversation) end
    handed[#handed + 1] = members
  end
  return used
end

local function put_back(account, class, entries)
  for i = #entries, 1, -1 do
    redis.call('LPUSH', lane(account, class), entries[i][1])
    seen[entries[i][1]] = nil
  end
end

-- The first account along the fallbacks that can send, or nil; nobody's mail is moved to where it would wait too.
local CHAIN = 8
local function able_fallback(a)
  local name = a.fallback
  for _ = 1, CHAIN do
    if not name then return nil end
    local f = read_account(name)
    if f.state == 'ready' and not spent_quota(f) then return name end
    name = f.fallback
  end
  return nil
end

-- What waits for an account that cannot send goes to a fallback that can. Answers true while anything may be left, and
-- the time to look again when no fallback can.
local function overflow(account, class, a, why)
  if redis.call('LLEN', lane(account, class)) == 0 then return false end
  local to = able_fallback(a)
  if not to then return false, NOW + 5 * SECOND end
  local ids = redis.call('LPOP', lane(account, class), BOUND) or {}
  for _, id in ipairs(ids) do
    local record = P .. 'delivery:' .. id
    local r = redis.call('HMGET', record, 'state', 'account')
    if r[1] == 'waiting' and r[2] == account then
      redis.call('HSET', record, 'account', to, 'via', account)
      note(id, cjson.encode({ what = 'overflowed', from = account, to = to, why = why }))
      redis.call('RPUSH', lane(to, class), id)
    end
  end
  if #ids > 0 then redis.call('ZADD', P .. 'due:' .. class, 'NX', DUE, to) end
  return #ids == BOUND
end

local function overflows(a, slow)
  return a.fallback and (a.overflow == 'slow' or (a.overflow == 'parked' and not slow))
end

local keeps_time = remembered[3]
local function keep_time(worker, looks_at)
  keeps_time = keep_fresh('timekeeper', worker .. '@' .. n2s(looks_at), 1.5 * SECOND)
end
local function timekeeper()
  local worker, looks_at = string.match(fresh(keeps_time) or '', '^(.*)@(%d+)$')
  return worker, number(looks_at)
end

-- Whether nobody knows if the server of the account that was looked at last hangs.
local doubtful = false

-- What this worker itself keeps open for the account that was looked at last.
local keeping = { count = 0, at = 0 }

-- Of a server that took no mail lately nobody knows whether it hangs: it gets one mail, and more once that is taken.
-- `unproven` holds the conversations with such servers by their begin. The newest, whose threads are not replaced yet
-- (broker.py), have half of all threads; all together leave as many as there are without spare ones; and a second one
-- with the same server begins only while they are few. Answers whether there is room for how many, or when to look again.
local NOT_REPLACED, LATELY, LATELY_WHILE_BUSY, FORGOTTEN = 0.3 * SECOND, 10 * SECOND, 0.2 * SECOND, 60 * SECOND
local function unheard(a, busy)
  return not a.proven or NOW - number(a.well_at) > (busy > 0 and LATELY_WHILE_BUSY or LATELY)
end

local function room_for_unheard(busy, threads)
  local key = P .. 'unproven'
  redis.call('ZREMRANGEBYSCORE', key, '-inf', NOW - FORGOTTEN)
  local all = redis.call('ZCARD', key)
  local newest = redis.call('ZCOUNT', key, NOW - NOT_REPLACED, '+inf')
  if newest >= math.floor(threads / 2) then return nil, NOW + SECOND / 20 end
  if all >= (busy > 0 and math.floor(threads / 4) or 2 * threads) then return nil, NOW + SECOND / 4 end
  return 1
end

-- How many of an account's conversations are with workers that drain: those hold connections, but nobody's threads.
local function with_drainers(account, a)
  if number(a.drains) <= NOW then return 0 end
  local count, drains = 0, {}
  for _, name in ipairs(redis.call('ZRANGE', P .. 'sending:' .. account, 0, number(a.cap, 1))) do
    local worker = string.match(name, '^(.*)%.%d+%.%d+$') or name
    if drains[worker] == nil then
      drains[worker] = redis.call('HGET', P .. 'worker:' .. worker, 'threads') == '0'
    end
    if drains[worker] then count = count + 1 end
  end
  return count
end

-- How many conversations the account may begin now, or nil and when to look again.
local function free_rooms(account, a)
  local threads = fleet()
  local troubled = a.probe or number(a.trouble) > 0
  local most = math.max(1, math.floor(number(a.cap, 1) * pace_factor(a)))
  local cap = most
  if threads > 0 and redis.call('SCARD', P .. 'accounts') > 1 then
    cap = math.min(cap, math.max(1, math.floor(threads / 2)))
  end
  if not a.proven then cap = 1 end
  if troubled then cap, most = 1, 1 end
  if troubled then
    redis.call('ZREMRANGEBYSCORE', P .. 'troubled', '-inf', NOW)
    if redis.call('ZCARD', P .. 'troubled') >= math.max(1, math.floor(threads / 4)) then
      return nil, NOW + SECOND / 4
    end
  end
  local busy = P .. 'sending:' .. account
  local begun, leaving, slots
  local function count()
    begun = redis.call('ZCARD', busy)
    leaving = begun > 0 and with_drainers(account, a) or 0
    slots = math.min(cap - begun + leaving, most - begun)
  end
  count()
  if slots <= 0 and not HOLD and redis.call('ZREMRANGEBYSCORE', busy, '-inf', NOW) > 0 then count() end
  doubtful = threads > 1 and unheard(a, begun)
  if slots > 0 then
    local room = slots
    if doubtful then
      local at
      room, at = room_for_unheard(begun - leaving, threads)
      if not room then
        redis.call('HSET', account_key(account), 'full', 1)
        return nil, at
      end
    end
    local holder
    for _, closely in ipairs({ false, not HOLD }) do
      local others
      others, holder, keeping.count, keeping.at = kept_by_others(account, WORKER, closely)
      local open = number(a.cap, 1) - begun - others
      if open > 0 then return math.min(room, open), troubled end
    end
    ask_for_a_connection(account, holder)
    keep_time(holder, NOW) -- who has the connections should be the one that looks
    redis.call('HSET', account_key(account), 'full', 1)
    return nil, NOW + SECOND
  end
  -- A freed slot makes the account due again; the end of the oldest lease is the fallback.
  redis.call('HSET', account_key(account), 'full', 1)
  return nil, math.max(number(redis.call('ZRANGE', busy, 0, 0, 'WITHSCORES')[2]), HOLD or 0)
end

-- A conversation holds what it sends in a moment at the account's pace: it costs little, and urgent mail waits for none
-- of it for long.
local USUAL, FEWEST, MOMENT = 16, 2, SECOND / 4
local function batch(a)
  local each = tonumber(a.each)
  if not each then return math.min(BATCH, USUAL) end
  return math.max(1, math.min(BATCH, math.max(FEWEST, math.floor(MOMENT / each))))
end

-- How many mails (and recipients) the account's rates and quotas allow now, and when the next one may go.
local function permits(account, a)
  local mails, again, spent = math.huge, NOW, nil
  local factor = pace_factor(a)
  for _, rule in ipairs(RULES) do
    local T = tonumber(a[rule[1] .. '_t'])
    if T then
      local count, soonest = allowance(rule, T / factor, number(a[rule[1] .. '_b'], 1), number(a[rule[1] .. '_tat']))
      mails, again = math.min(mails, count), math.max(again, soonest)
    end
  end
  local recipients = math.huge
  local most = batch(a) * (a.counts == 'r' and number(a.max_rcpt, 1) or 1)
  for name, length in pairs({ hour = HOUR, day = DAY }) do
    local left, ends, kept = quota_left(account, a, name, length, most)
    if left then
      recipients = math.min(recipients, left)
      if left == 0 and kept then -- the next conversation that ends says more
        redis.call('HSET', account_key(account), 'full', 1)
        again = math.max(again, math.min(ends, NOW + SECOND))
      elseif left == 0 then
        again, spent = math.max(again, ends), true
      end
    end
  end
  if a.counts ~= 'r' then
    mails = math.min(mails, recipients)
    recipients = math.huge
  end
  return mails, recipients, again, spent
end

local function spend(account, a, mails, recipients, again)
  local key, factor = account_key(account), pace_factor(a)
  for _, rule in ipairs(RULES) do
    local T = tonumber(a[rule[1] .. '_t'])
    if T then
      T = T / factor
      local tat = arrival(rule, number(a[rule[1] .. '_tat'])) + mails * T
      redis.call('HSET', key, rule[1] .. '_tat', whole(tat), 'granted', NAME)
      again = math.max(again, tat - (number(a[rule[1] .. '_b'], 1) - 1) * T)
    end
  end
  for _, name in ipairs({ 'hour', 'day' }) do
    if a[name .. '_limit'] then redis.call('HINCRBY', key, name .. '_used', a.counts == 'r' and recipients or mails) end
  end
  return again
end

-- Urgent mail goes first; but where bulk waits beside it at the account's limit, every tenth mail is bulk.
local AHEAD_OF_BULK = 9

local serve
function serve(account, class, share, most)
  heads['due:u'], heads['due:b'] = nil, nil
  local due = P .. 'due:' .. class
  local function later(at) redis.call('ZADD', due, whole(at), account) end
  local a = read_account(account)
  if a.state ~= 'ready' then
    local more, at
    if a.state and a.state ~= 'paused' and overflows(a, false) then more, at = overflow(account, class, a, a.reason) end
    if more or at then return later(at or NOW) end
    return redis.call('ZREM', due, account)
  end
  local hold = math.max(number(a.hold), number(a.stalled))
  if hold > NOW or pace_factor(a) < 1 then
    if overflows(a, true) and overflow(account, class, a, 'slow') then return later(NOW) end
    if hold > NOW then return later(hold) end
  end
  if class == 'u' and number(a.ahead) >= AHEAD_OF_BULK then
    serve(account, 'b', 1, 1)
    if conversations >= WANTED then return later(NOW) end
    a = read_account(account)
  end
  local mails, recipients, again, spent = permits(account, a)
  if spent and overflows(a, false) then
    local more, at = overflow(account, class, a, 'quota')
    if more or at then return later(math.min(at or NOW, again)) end
  end
  if mails <= 0 or recipients <= 0 then return later(again) end
  local rooms, troubled = free_rooms(account, a)
  if not rooms then return later(troubled) end
  rooms = math.min(rooms, share)
  local size = math.min(number(a.max_rcpt, 1), recipients)
  mails = math.min(mails, recipients, (troubled or doubtful) and 1 or rooms * batch(a), most or math.huge)
  local taken, extra = take(account, class, mails, size, recipients)
  local used, before = 0, conversations
  if #taken > 0 then used = group(taken, account, rooms, troubled, doubtful) end
  if keeping.count > 0 and conversations > before then -- they go over what it keeps
    local left = math.max(0, keeping.count - (conversations - before))
    redis.call('HSET', P .. 'kept:' .. account, WORKER, n2s(left) .. ' ' .. keeping.at)
  end
  put_back(account, class, extra)
  local people = 0
  for i = #taken, 1, -1 do
    if i > used then put_back(account, class, taken[i]) else people = people + #taken[i] end
  end
  if used > 0 then
    again = spend(account, a, used, people, again)
    if class == 'b' and a.ahead then redis.call('HDEL', account_key(account), 'ahead') end
    if class == 'u' and redis.call('LLEN', lane(account, 'b')) > 0 then
      redis.call('HINCRBY', account_key(account), 'ahead', used)
    end
  end
  if redis.call('LLEN', lane(account, class)) > 0 then later(again) else redis.call('ZREM', due, account) end
end

local function pass(class, limit)
  if limit <= 0 or head('due:' .. class) > NOW then return end
  local accounts = redis.call('ZRANGEBYSCORE', P .. 'due:' .. class, '-inf', NOW, 'LIMIT', 0, limit)
  local share = math.ceil(limit / math.max(1, #accounts))
  for _, account in ipairs(accounts) do
    local left = WANTED - conversations
    if left <= 0 then break end
    serve(account, class, math.min(share, left))
  end
end

-- Somebody lowered the cap: those who keep connections would wait for each other.
local function over_the_cap(account, mine)
  local cap = number(redis.call('HGET', account_key(account), 'cap'), 1)
  return mine + kept_by_others(account, WORKER, not HOLD) + redis.call('ZCARD', P .. 'sending:' .. account) > cap
end

-- Others wait for connections that this worker keeps: it sends over them, or closes them when no thread is free.
local function answer_those_who_asked()
  local asked = redis.call('SMEMBERS', P .. 'asked:' .. WORKER)
  if #asked == 0 then return end
  redis.call('DEL', P .. 'asked:' .. WORKER)
  for _, account in ipairs(asked) do
    for _, class in ipairs({ 'u', 'b' }) do
      local left = WANTED - conversations
      if left > 0 and redis.call('LLEN', lane(account, class)) > 0 then serve(account, class, left) end
    end
    local mine = kept_by(account, WORKER)
    if mine > 0 and (conversations >= WANTED or over_the_cap(account, mine)) then handed[#handed + 1] = { '', account } end
  end
end

answer_those_who_asked()
if WANTED > 0 then
  -- Bulk that has been due for five seconds gets one turn before more urgent mail: never starved, never first.
  if NOW - head('due:b') > 5000000 and WANTED > 1 then pass('b', 1) end
  pass('u', WANTED - conversations)
  pass('b', WANTED - conversations)
end
local lease_ends = head('lease')
if HOLD then lease_ends = math.max(lease_ends, HOLD) end
local soonest = math.min(head('due:u'), head('due:b'), head('scheduled'), lease_ends, head('deadline'), head('parked'))
local wait = math.max(0, math.min(SECOND, soonest - NOW))
if WANTED > 0 and soonest <= NOW and conversations > 0 then wake() end
-- One idle worker watches the clock for all, the one that looks soonest; the others are its stand-ins.
local keeper, looks_at = timekeeper()
if conversations >= WANTED then -- no thread is free: somebody else must watch
  if keeper == WORKER then
    redis.call('DEL', P .. 'fresh:timekeeper')
    wake()
  end
elseif not keeper or keeper == WORKER or NOW + wait < looks_at then
  keep_time(WORKER, NOW + wait)
else
  wait = 2 * SECOND
end
fill_in_payloads()
write_together()
return { wait, WALL, NOW, unpack(handed) }
