-- Accept events, each whole or not at all. ARGV: key lifetime (s), number of events, then per event:
--   key, fingerprint, event id, tenant, kind, version, account, class, on_unknown, lifetime (us), expiry (us, 0),
--   not before (us, 0), supersede key or '', number of allowances, then per allowance: key, most, window (s);
--   number of deliveries, then per delivery: id, masked recipient, recipient key, Message-ID, packet or '', payload.
-- Answers per event: {'new' | 'duplicate' | 'conflict' | 'busy', event id, delivery ids...}, or
-- {'spent', event id, number of the allowance, seconds until it is free}.
local function memory_is_short()
  local known = fresh('memory')
  if known then return known == 'short' end
  local info = redis.call('INFO', 'memory')
  local used = tonumber(string.match(info, 'used_memory:(%d+)'))
  local max = tonumber(string.match(info, 'maxmemory:(%d+)')) or 0
  local short = max > 0 and used > 0.75 * max
  -- Publishers can fill a quarter of a small server within half a second: beyond half, look nearly every time.
  keep_fresh('memory', short and 'short' or 'fine', max > 0 and used > 0.5 * max and 20000 or 500000)
  return short
end

local function supersede(key, by)
  for older in string.gmatch(redis.call('GET', key) or '', '[^,]+') do
    local record = P .. 'delivery:' .. older
    local state = redis.call('HGET', record, 'state')
    if state == 'waiting' then
      redis.call('HSET', record, 'state', 'discarded', 'cause', 'superseded', 'by', by, 'ended_at', WALLS)
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

local busy = memory_is_short()
local i = 3
local any, due = false, {}

local function next_arguments(count)
  i = i + count
  return unpack(ARGV, i - count, i - 1)
end

local function known_answer(first, fingerprint)
  local known, event, ids = string.match(first, '^(%S+) (%S+) (%S+)$')
  local answer = { known == fingerprint and 'duplicate' or 'conflict', event }
  for id in string.gmatch(ids, '[^,]+') do answer[#answer + 1] = id end
  return answer
end

local function into_the_ledger(e, id, masked, rkey, message_id, packet, payload)
  local record = P .. 'delivery:' .. id
  redis.call('HSET', record, 'state', 'waiting', 'fence', 0, 'attempt', 0, 'event', e.event, 'tenant', e.tenant, 'kind', e.kind,
    'version', e.version, 'account', e.account, 'class', e.class, 'on_unknown', e.on_unknown, 'accepted_at', WALLS, 'deadline',
    e.deadline, 'recipient', masked, 'rkey', rkey, 'message_id', message_id, 'key', e.key)
  if packet ~= '' then redis.call('HSET', record, 'packet', packet) end
  gather('MSET', '', P .. 'payload:' .. id, payload)
  gather('ZADD', P .. 'deadline', e.deadline, id)
  if e.not_before > REAL then
    redis.call('HSET', record, 'due', n2s(e.not_before))
    redis.call('ZADD', P .. 'scheduled', n2s(e.not_before), id)
  else
    gather('RPUSH', lane(e.account, e.class), id)
    due[e.class .. e.account] = { e.class, e.account }
    any = true
  end
end

local function accept(e, count)
  local answer = { 'new', e.event }
  for d = 1, count do
    answer[d + 2] = ARGV[i]
    into_the_ledger(e, next_arguments(6))
  end
  local ids = table.concat(answer, ',', 3)
  if e.supersedes ~= '' then
    local pointer = P .. 'latest:' .. e.tenant .. ':' .. e.supersedes
    supersede(pointer, answer[3])
    redis.call('SET', pointer, ids, 'PXAT', string.format('%.0f', (tonumber(e.deadline) - REAL_AHEAD) / 1000))
  end
  redis.call('SET', P .. 'key:' .. e.key, e.fingerprint .. ' ' .. e.event .. ' ' .. ids, 'EX', ARGV[1])
  local own = e.tenant .. ':' .. e.event
  if e.key ~= own then redis.call('SET', P .. 'event:' .. own, e.key, 'EX', KEY_KEPT) end
  return answer
end

local function publish_one()
  local e = {}
  local lifetime, expiry, not_before, allowances
  e.key, e.fingerprint, e.event, e.tenant, e.kind, e.version, e.account, e.class, e.on_unknown, lifetime, expiry,
    not_before, e.supersedes, allowances = next_arguments(14)
  local first_allowance = i
  i = i + 3 * tonumber(allowances)
  local count = tonumber(next_arguments(1))
  local first = redis.call('GET', P .. 'key:' .. e.key)
  local which, free_in
  if not first and not busy then which, free_in = spent_allowance(first_allowance, tonumber(allowances)) end
  if not (first or busy or which) then
    e.not_before = tonumber(not_before) + REAL_AHEAD -- publishers' times are WALL's
    local deadline = math.max(REAL, e.not_before) + tonumber(lifetime)
    if tonumber(expiry) > 0 then deadline = math.min(deadline, tonumber(expiry) + REAL_AHEAD) end
    e.deadline = n2s(deadline)
    return accept(e, count)
  end
  i = i + 6 * count
  if first then return known_answer(first, e.fingerprint) end
  if busy then return { 'busy', e.event } end
  return { 'spent', e.event, which, free_in }
end

local answers = {}
for index = 1, tonumber(ARGV[2]) do answers[index] = publish_one() end
write_together()
-- An account that already waits for its turn keeps its place.
for _, place in pairs(due) do redis.call('ZADD', P .. 'due:' .. place[1], 'NX', DUES, place[2]) end
if any then wake() end
return answers
