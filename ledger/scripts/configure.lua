-- Write accounts' limits as the claim script needs them. ARGV: registry text, its version, number of accounts, then per
-- account its name, the number of fields, and field, value...; an empty value removes the field. `credential` names the
-- secrets the account logs in with: another one wakes an account that waits for a person; `repeated` is one that this
-- worker named before, and no change; with `appeared` the worker did not have the account before, which may be why it
-- waits. Counts and states are kept.
-- Repeating is safe. Answers the accounts whose credential changed.
local changed = {}
if ARGV[1] ~= '' then redis.call('HSET', P .. 'registry', 'text', ARGV[1], 'version', ARGV[2]) end
local i = 4
for _ = 1, tonumber(ARGV[3]) do
  local name, fields = ARGV[i], tonumber(ARGV[i + 1])
  local key = account_key(name)
  local before = redis.call('HMGET', key, 'credential', 'state', 'reason', 'max_given', 'day_end')
  local appeared
  i = i + 2
  for _ = 1, fields do
    local field, value = ARGV[i], ARGV[i + 1]
    if field == 'day_end' and value ~= '' then value = n2s(tonumber(value) + AHEAD) end
    -- A day's end that was reckoned before it passed says nothing any more, and one that has passed is for claim to
    -- see: it starts the new day, once.
    local stale = field == 'day_end' and value ~= '' and (tonumber(value) <= NOW or number(before[5], NOW + 1) <= NOW)
    if field == 'appeared' then
      appeared = true
    elseif field == 'repeated' then
      redis.call('HSETNX', key, 'credential', value)
    elseif value == '' then
      redis.call('HDEL', key, field)
    elseif not stale then
      redis.call('HSET', key, field, value)
    end
    i = i + 2
  end
  local now = redis.call('HMGET', key, 'credential', 'max_given')
  -- What splitting a packet taught stays until somebody sets another maximum.
  if now[2] ~= before[4] then redis.call('HSET', key, 'max_rcpt', now[2]) end
  if not before[2] then
    redis.call('HSET', key, 'state', 'ready')
  elseif now[1] and before[1] and now[1] ~= before[1] then
    redis.call('HDEL', key, 'proven', 'told')
    changed[#changed + 1] = name
    if before[2] == 'needs_login' or (before[2] == 'parked' and before[3] ~= 'unreachable') then make_ready(name, true) end
  elseif appeared and before[2] == 'parked' and before[3] == 'account' then
    make_ready(name, true)
  end
  redis.call('SADD', P .. 'accounts', name)
  make_all_due(name)
end
return changed
