-- Accept events, each whole or not at all. ARGV: key lifetime (s), number of events, then per event:
--   key, fingerprint, event id, tenant, kind, version, account, class, on_unknown, lifetime (us), expiry (us, 0),
--   not before (us, 0), supersede key or '', number of deliveries, then per delivery: id, masked recipient, recipient key, Message-ID, payload.
-- Answers per event: {'new' | 'duplicate' | 'conflict' | 'busy', event id, delivery ids...}.
local function memory_is_short()
  local known = redis.call('GET', P .. 'memory')
  if known then return known == 'short' end
  local info = redis.call('INFO', 'memory')
  local used = tonumber(string.match(info, 'used_memory:(%d+)'))
  local max = tonumber(string.match(info, 'maxmemory:(%d+)')) or 0
  local short = max > 0 and used > 0.75 * max
  redis.call('SET', P .. 'memory', short and 'short' or 'fine', 'PX', 500)
  return short
end

local function supersede(key, by)
  for older in string.gmatch(redis.call('GET', key) or '', '[^,]+') do
    local record = P .. 'delivery:' .. older
    local state = redis.call('HGET', record, 'state')
    if state == 'waiting' then
      redis.call('HSET', record, 'state', 'discarded', 'cause', 'superseded', 'by', by, 'ended_at', NOWS)
      note(older, cjson.encode({ what = 'superseded', by = by }))
      redis.call('ZREM', P .. 'scheduled', older)
      finish(older, 'discarded', true)
    elseif state == 'leased' or state == 'sending' then
      redis.call('HSET', record, 'superseded', by)
    end
  end
end

local busy = memory_is_short()
local answers = {}
local i = 3
local any, due = false, {}
for _ = 1, tonumber(ARGV[2]) do
  local key, fingerprint, event, tenant, kind, version = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  local account, class, on_unknown, lifetime = ARGV[i + 6], ARGV[i + 7], ARGV[i + 8], tonumber(ARGV[i + 9])
  local expiry, not_before, sup, count = tonumber(ARGV[i + 10]), tonumber(ARGV[i + 11]), ARGV[i + 12], tonumber(ARGV[i + 13])
  i = i + 14
  local deadline = math.max(NOW, not_before) + lifetime
  if expiry > 0 then deadline = math.min(deadline, expiry) end
  deadline = n2s(deadline)
  local first = redis.call('GET', P .. 'key:' .. key)
  if first then
    local known, event_id, ids = string.match(first, '^(%S+) (%S+) (%S+)$')
    local answer = { known == fingerprint and 'duplicate' or 'conflict', event_id }
    for id in string.gmatch(ids, '[^,]+') do answer[#answer + 1] = id end
    answers[#answers + 1] = answer
    i = i + count * 5
  elseif busy then
    answers[#answers + 1] = { 'busy', event }
    i = i + count * 5
  else
    local answer = { 'new', event }
    for d = 1, count do
      local id, masked, rkey, message_id, payload = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
      i = i + 5
      answer[#answer + 1] = id
      redis.call('HSET', P .. 'delivery:' .. id, 'state', 'waiting', 'fence', 0, 'attempt', 0, 'event', event, 'tenant',
        tenant, 'kind', kind, 'version', version, 'account', account, 'class', class, 'on_unknown', on_unknown, 'accepted_at',
        NOWS, 'deadline', deadline, 'recipient', masked, 'rkey', rkey, 'message_id', message_id, 'key', key)
      gather('MSET', '', P .. 'payload:' .. id, payload)
      gather('ZADD', P .. 'deadline', deadline, id)
      if not_before > NOW then
        redis.call('HSET', P .. 'delivery:' .. id, 'due', n2s(not_before))
        redis.call('ZADD', P .. 'scheduled', n2s(not_before), id)
      else
        gather('RPUSH', lane(account, class), id)
        due[class .. account] = { class, account }
        any = true
      end
    end
    local ids = table.concat(answer, ',', 3)
    if sup ~= '' then
      local pointer = P .. 'latest:' .. tenant .. ':' .. sup
      supersede(pointer, answer[3])
      redis.call('SET', pointer, ids, 'PXAT', string.format('%.0f', tonumber(deadline) / 1000))
    end
    redis.call('SET', P .. 'key:' .. key, fingerprint .. ' ' .. event .. ' ' .. ids, 'EX', ARGV[1])
    answers[#answers + 1] = answer
  end
end
write_together()
-- An account that already waits for its turn keeps its place.
for _, place in pairs(due) do redis.call('ZADD', P .. 'due:' .. place[1], 'NX', NOWS, place[2]) end
if any then wake() end
return answers
