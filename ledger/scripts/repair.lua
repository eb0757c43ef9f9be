-- Do the indexes say of these deliveries what their records say? ARGV: mend (0|1), grace (us), then per delivery: id, is
-- it in the lane of its account (0|1). Answers per delivery '' or what is wrong. Mending is safe to repeat: a delivery
-- that stands in its lane twice leaves once.
local ENDS = { 'sent', 'failed', 'expired', 'unknown', 'discarded', 'suppressed' }
local MEND = ARGV[1] == '1'
local answers = {}

local function place(id, wanted, state)
  local wrong = {}
  local function check(key, should, score)
    local is = redis.call('ZSCORE', P .. key, id)
    if should and not is then
      wrong[#wrong + 1] = 'not in ' .. key
      if MEND then redis.call('ZADD', P .. key, score, id) end
    elseif is and not should then
      wrong[#wrong + 1] = 'wrongly in ' .. key
      if MEND then redis.call('ZREM', P .. key, id) end
    end
  end
  for _, name in ipairs(ENDS) do check('ended:' .. name, wanted and state == name, wanted and wanted.ended) end
  check('lease', wanted and wanted.lease, NOW)
  check('deadline', wanted and wanted.deadline, wanted and wanted.deadline)
  if not (wanted and state == 'waiting') then check('scheduled', false) end
  check('forget', wanted and (state == 'sent' or state == 'discarded'), NOW + 30 * 86400000000)
  return wrong
end

local function group(id, state, r, wrong)
  local known = r[6] and redis.call('ZSCORE', P .. 'group:' .. r[6], id) and redis.call('HEXISTS', P .. 'groups', r[6]) == 1
  if WAITS[state] and not known then
    wrong[#wrong + 1] = 'not in its group'
    if MEND then into_group(id, state, r[5] or WALL) end
  elseif not WAITS[state] and r[6] then
    wrong[#wrong + 1] = 'wrongly in a group'
    if MEND then leave(id, state) end
  end
end

for i = 3, #ARGV, 2 do
  local id = ARGV[i]
  local r = redis.call('HMGET', P .. 'delivery:' .. id, 'state', 'account', 'class', 'deadline', 'ended_at', 'group',
    'due', 'attempt', 'accepted_at')
  local state = r[1]
  local wrong
  if not state then
    wrong = place(id, nil)
  else
    local held = state == 'leased' or state == 'sending'
    local lives = held or state == 'waiting'
    wrong = place(id, { ended = r[5] or WALL, lease = held, deadline = lives and r[4] or nil }, state)
    group(id, state, r, wrong)
    if state == 'waiting' and ARGV[i + 1] == '0' and not redis.call('ZSCORE', P .. 'scheduled', id) then
      wrong[#wrong + 1] = 'in no lane'
      if MEND then to_lane(id, r[2], r[3], tonumber(r[8] or 0) > 0) end
    end
  end
  answers[#answers + 1] = table.concat(wrong, ', ')
end
if MEND then wake() end
write_together()
return answers
