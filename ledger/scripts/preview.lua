-- What a replay would do with these deliveries; changes nothing. ARGV: when the first would start (us), interval (us),
-- unknown too (0|1), another account or '', the one tenant that may use it or '' for all, lifetime of kinds that are not
-- named (us), slack of deadlines (us), number of kinds, then kind, lifetime (us)...; then 'ids', ids..., or 'group', the
-- key of a group, first and last rank, and what its members share: state, account, kind, tenant.
-- Answers {looked at, how many would start, then what, name, count...}; what is account, kind or stays.
local slot, interval, unknown_too, account, tenant = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1', ARGV[4], ARGV[5]
local other, slack, last_kind = tonumber(ARGV[6]), tonumber(ARGV[7]), 8 + 2 * tonumber(ARGV[8])
local lifetimes = {}
for i = 9, last_kind, 2 do lifetimes[ARGV[i]] = tonumber(ARGV[i + 1]) end
local REPLAYABLE = { failed = true, unknown = true, expired = true }
local tallies, starts = { account = {}, kind = {}, stays = {} }, 0

local function count(what, name, by) tallies[what][name] = (tallies[what][name] or 0) + (by or 1) end

local function why_none(state, owner)
  if not state then return 'unknown_id' end
  if state == 'sent' then return 'already_sent' end
  if state == 'unknown' and not unknown_too then return 'unknown' end
  if not REPLAYABLE[state] then return 'not_possible' end
  if tenant ~= '' and owner ~= tenant then return 'other_tenant' end
  return nil
end

-- A deadline that is earlier than its kind's was cut by the event's own expiry.
local function look(id, own_account, kind, deadline, accepted)
  deadline = tonumber(deadline)
  if deadline <= slot and deadline < tonumber(accepted) + (lifetimes[kind] or other) - slack then
    count('stays', 'over')
  elseif redis.call('EXISTS', P .. 'payload:' .. id) == 0 then
    count('stays', 'no_content')
  else
    starts = starts + 1
    slot = slot + interval
    count('account', account ~= '' and account or own_account)
    count('kind', kind)
  end
end

local looked
if ARGV[last_kind + 1] == 'group' then
  local key, first, last, state, own_account, kind, owner = unpack(ARGV, last_kind + 2, last_kind + 8)
  local ids = redis.call('ZRANGE', P .. key, first, last)
  local why = why_none(state, owner)
  looked = #ids
  if why then
    count('stays', why, looked)
  else
    for _, id in ipairs(ids) do
      local r = redis.call('HMGET', P .. 'delivery:' .. id, 'deadline', 'accepted_at')
      look(id, own_account, kind, r[1], r[2])
    end
  end
else
  looked = #ARGV - last_kind - 1
  for i = last_kind + 2, #ARGV do
    local r = redis.call('HMGET', P .. 'delivery:' .. ARGV[i], 'state', 'account', 'kind', 'tenant', 'deadline', 'accepted_at')
    local why = why_none(r[1], r[4])
    if why then count('stays', why) else look(ARGV[i], r[2], r[3], r[5], r[6]) end
  end
end

local answer = { looked, starts }
for what, tally in pairs(tallies) do
  for name, number in pairs(tally) do
    answer[#answer + 1] = what
    answer[#answer + 1] = name
    answer[#answer + 1] = number
  end
end
return answer
