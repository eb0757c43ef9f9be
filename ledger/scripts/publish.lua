-- Accept events, each whole or not at all. ARGV: key lifetime (s), number of events, then per event:
--   key, fingerprint, event id, tenant, kind, version, account, class, on_unknown, lifetime (us), expiry (us, 0),
--   not before (us, 0), supersede key or '', number of allowances, then per allowance: key, most, window (s);
--   number of deliveries, then per delivery: id, masked recipient, recipient key, Message-ID, packet or '', payload.
-- Answers per event: {'new' | 'duplicate' | 'conflict' | 'busy', event id, delivery ids...}, or
-- {'spent', event id, number of the allowance, seconds until it is free}.
local function memory_is_short(text)
  local known = fresh(text)
  if known then return known == 'short' end
  local info = redis.call('INFO', 'memory')
  local used = tonumber(string.match(info, 'used_memory:(%d+)'))
  local max = tonumber(string.match(info, 'maxmemory:(%d+)')) or 0
  local short = max > 0 and used > 0.75 * max
  -- Publishers can fill a quarter of a small server within half a second: beyond half, look nearly every time.
  keep_fresh('memory', short and 'short' or 'fine', max > 0 and used > 0.5 * max and 20000 or 500000)
  return short
end

local function supersede(ids, by)
  for older in string.gmatch(ids, '[^,]+') do
    local record = P .. 'delivery:' .. older
    local state = redis.call('HGET', record, 'state')
    if state == 'waiting' then
      redis.call('HSET', record, 'state', 'discarded', 'cause', 'superseded', 'by', by, 'ended_at', WALL)
      note(older, cjson.encode({ what = 'superseded', by = by }))
      redis.call('ZREM', P .. 'scheduled', older)
      finish(older, 'discarded', true)
    elseif state == 'leased' or state == 'sending' then
      redis.call('HSET', record, 'superseded', by)
    end
  end
end

-- Cooldowns and budgets: an event spends one of each, or none of any.
local function spent_allowance(from, count)
  for index = 1, count do
    local at = from + 3 * (index - 1)
    local used = tonumber(redis.call('GET', P .. 'allowance:' .. ARGV[at]) or 0)
    if used >= tonumber(ARGV[at + 1]) then return index, math.ceil(redis.call('PTTL', P .. 'allowance:' .. ARGV[at]) / 1000) end
  end
  for index = 1, count do
    local at = from + 3 * (index - 1)
    local key = P .. 'allowance:' .. ARGV[at]
    if redis.call('INCR', key) == 1 then redis.call('EXPIRE', key, ARGV[at + 2]) end
  end
  return nil
end

-- Reads all events, and with one command what their keys and those they supersede are known by: `found`, by full name.
local i = 3
local events, names, found = {}, { P .. 'fresh:memory' }, {}
for index = 1, tonumber(ARGV[2]) do
  local key, fingerprint, event, tenant, kind, version, account, class, on_unknown, lifetime, expiry, not_before,
    supersedes, allowances = unpack(ARGV, i, i + 13)
  allowances = tonumber(allowances)
  local count = tonumber(ARGV[i + 14 + 3 * allowances])
  local e = { key = key, fingerprint = fingerprint, event = event, tenant = tenant, kind = kind, version = version,
    account = account, class = class, on_unknown = on_unknown, lifetime = lifetime, expiry = expiry,
    not_before = not_before, pointer = false, known = P .. 'key:' .. key, allowances = allowances, count = count,
    first_allowance = i + 14, first = i + 15 + 3 * allowances, deadline = 0 }
  names[#names + 1] = e.known
  if supersedes ~= '' then
    e.pointer = P .. 'latest:' .. tenant .. ':' .. supersedes
    names[#names + 1] = e.pointer
  end
  events[index] = e
  i = e.first + 6 * count
end
for from = 1, #names, SLICE do
  local to = math.min(from + SLICE - 1, #names)
  for index, value in ipairs(redis.call('MGET', unpack(names, from, to))) do found[names[from + index - 1]] = value end
end

local busy = memory_is_short(found[P .. 'fresh:memory'])
local till = whole(WALL / 1000 + tonumber(ARGV[1]) * 1000) -- when keys of now are forgotten (ms)
local due = {}

local function known_answer(first, fingerprint)
  local known, event, ids = string.match(first, '^(%S+) (%S+) (%S+)$')
  local answer = { known == fingerprint and 'duplicate' or 'conflict', event }
  for id in string.gmatch(ids, '[^,]+') do answer[#answer + 1] = id end
  return answer
end

local function into_the_ledger(e, id, masked, rkey, message_id, packet, payload)
  local record = P .. 'delivery:' .. id
  redis.call('HSET', record, 'state', 'waiting', 'fence', '0', 'attempt', '0', 'event', e.event, 'tenant', e.tenant, 'kind',
    e.kind, 'version', e.version, 'account', e.account, 'class', e.class, 'on_unknown', e.on_unknown, 'accepted_at', WALL,
    'deadline', e.deadline, 'recipient', masked, 'rkey', rkey, 'message_id', message_id, 'key', e.key)
  if packet ~= '' then redis.call('HSET', record, 'packet', packet) end
  gather('MSET', '', P .. 'payload:' .. id, payload)
  gather('ZADD', 'deadline', e.deadline, id)
  if e.not_before > REAL then
    redis.call('HSET', record, 'due', e.not_before)
    redis.call('ZADD', P .. 'scheduled', e.not_before, id)
  else
    local to = e.account .. ':' .. e.class
    if not due[to] then due[to] = { e.class, e.account, 'lane:' .. to } end
    gather('RPUSH', due[to][3], id)
  end
end

local function accept(e)
  local answer = { 'new', e.event }
  for d = 1, e.count do
    local at = e.first + 6 * (d - 1)
    answer[d + 2] = ARGV[at]
    into_the_ledger(e, unpack(ARGV, at, at + 5))
  end
  local ids = e.count == 1 and answer[3] or table.concat(answer, ',', 3)
  if e.pointer then
    if found[e.pointer] then supersede(found[e.pointer], answer[3]) end
    redis.call('SET', e.pointer, ids, 'PXAT', whole((e.deadline - REAL_AHEAD) / 1000))
    found[e.pointer] = ids
  end
  found[e.known] = e.fingerprint .. ' ' .. e.event .. ' ' .. ids
  redis.call('SET', e.known, found[e.known], 'PXAT', till)
  local own = e.tenant .. ':' .. e.event
  if e.key ~= own then redis.call('SET', P .. 'event:' .. own, e.key, 'EX', KEY_KEPT) end
  return answer
end

local function publish_one(e)
  local first = found[e.known]
  if first then return known_answer(first, e.fingerprint) end
  if busy then return { 'busy', e.event } end
  if e.allowances > 0 then
    local which, free_in = spent_allowance(e.first_allowance, e.allowances)
    if which then return { 'spent', e.event, which, free_in } end
  end
  e.not_before = e.not_before ~= '0' and tonumber(e.not_before) + REAL_AHEAD or 0 -- publishers' times are WALL's
  e.deadline = math.max(REAL, e.not_before) + tonumber(e.lifetime)
  local expiry = tonumber(e.expiry)
  if expiry > 0 then e.deadline = math.min(e.deadline, expiry + REAL_AHEAD) end
  return accept(e)
end

local answers = {}
for index, e in ipairs(events) do answers[index] = publish_one(e) end
write_together()
-- An account that already waits for its turn keeps its place.
for _, place in pairs(due) do redis.call('ZADD', P .. 'due:' .. place[1], 'NX', DUE, place[2]) end
if next(due) then wake() end
return answers
