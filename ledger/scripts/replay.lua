-- Start deliveries anew, stop that, and say how it goes. ARGV: verb, replay id, then per verb
--   start    who, interval (us, 0: no pace), not before (us, 0), account or '', unknown too (0|1), lifetime of the
--            replay's own notes (s), then per delivery: id, lifetime (us), the event's own expiry (us, 0)
--            -> per delivery 1 waits, 2 is in this replay already, 3 the replay was stopped, 0 not in a state to replay,
--               -1 unknown id, -2 over, -3 nobody knows whether it left, -4 its content is gone
--   halt     who                    -> 1; no delivery is added any more
--   undo     who, ids...            -> per id 1 is back where it came from, 0 it was started or is not of this replay
--   progress from, to (ranks)       -> {state, count...}
until_somebody_looks()
local REPLAY = P .. 'replay:' .. ARGV[2]
local MEMBERS = P .. 'replay-of:' .. ARGV[2]
local REPLAYABLE = { failed = true, unknown = true, expired = true }
local verbs = {}

local function refusal(id, record, r, unknown_too)
  local state = r[1]
  if not state then return -1 end
  if redis.call('ZSCORE', MEMBERS, id) then return 2 end
  if not REPLAYABLE[state] then return 0 end
  if state == 'unknown' and not unknown_too then return -3 end
  if redis.call('EXISTS', P .. 'payload:' .. id) == 0 then return -4 end
  return nil
end

local function start(id, r, due, deadline, who, interval, account)
  local record, state = P .. 'delivery:' .. id, r[1]
  leave(id, state)
  redis.call('HSET', record, 'was', state, 'was_ended', r[4] or WALL, 'was_account', r[2], 'was_deadline', r[5],
    'was_attempt', r[6] or 0)
  redis.call('HSET', record, 'state', 'waiting', 'attempt', 0, 'deadline', deadline, 'replay', ARGV[2])
  redis.call('HINCRBY', record, 'fence', 1)
  redis.call('HINCRBY', record, 'replays', 1)
  redis.call('HDEL', record, 'crashes', 'ended_at', 'due', 'deferred', 'via', 'pace')
  if account ~= '' then redis.call('HSET', record, 'account', account) end
  redis.call('ZADD', P .. 'deadline', deadline, id)
  local moved = account ~= '' and account ~= r[2] and account or nil
  note(id, cjson.encode({ what = 'replayed', by = who, was = state, account = moved, from = moved and r[2], replay = ARGV[2] }))
  if interval > 0 then redis.call('HSET', record, 'pace', interval) end
  if due > NOW then
    redis.call('HSET', record, 'due', whole(due))
    redis.call('ZADD', P .. 'scheduled', whole(due), id)
  else
    to_lane(id, account ~= '' and account or r[2], r[3], false)
  end
  redis.call('ZADD', MEMBERS, whole(due), id)
end

function verbs.start()
  local who, interval, not_before, account, unknown_too = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], ARGV[7] == '1'
  local answers, count = {}, 0
  local known = redis.call('HMGET', REPLAY, 'next', 'stopped')
  if not known[1] then
    redis.call('HSET', REPLAY, 'by', who, 'created_at', WALL, 'pace', interval, 'at', not_before, 'account', account)
    redis.call('ZADD', P .. 'replays', WALL, ARGV[2])
  end
  local next_slot = math.max(number(known[1]), not_before > WALL and not_before + REAL_AHEAD or 0, NOW)
  for i = 9, #ARGV, 3 do
    local id, lifetime, expiry = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
    if expiry > 0 then expiry = expiry + REAL_AHEAD end
    local r = redis.call('HMGET', P .. 'delivery:' .. id, 'state', 'account', 'class', 'ended_at', 'deadline', 'attempt')
    local answer = known[2] and 3 or refusal(id, P .. 'delivery:' .. id, r, unknown_too)
    if not answer and expiry > 0 and expiry <= next_slot + REAL - NOW then answer = -2 end
    if not answer then
      start(id, r, next_slot, whole(expiry > 0 and expiry or next_slot + lifetime + REAL - NOW), who, interval, account)
      next_slot = next_slot + interval
      answer, count = 1, count + 1
    end
    answers[#answers + 1] = answer
  end
  redis.call('HSET', REPLAY, 'next', whole(next_slot))
  redis.call('HINCRBY', REPLAY, 'total', count)
  redis.call('EXPIRE', REPLAY, ARGV[8])
  redis.call('EXPIRE', MEMBERS, ARGV[8])
  redis.call('ZREMRANGEBYSCORE', P .. 'replays', '-inf', WALL - tonumber(ARGV[8]) * 1000000)
  if count > 0 then wake() end
  return answers
end

function verbs.halt()
  if redis.call('EXISTS', REPLAY) == 0 then return 0 end
  redis.call('HSETNX', REPLAY, 'stopped', WALL)
  redis.call('HSETNX', REPLAY, 'stopped_by', ARGV[3])
  return 1
end

function verbs.undo()
  local answers = {}
  for i = 4, #ARGV do
    local id = ARGV[i]
    local record = P .. 'delivery:' .. id
    local r = redis.call('HMGET', record, 'state', 'replay', 'attempt', 'was', 'was_ended', 'was_account',
      'was_deadline', 'was_attempt')
    if r[1] == 'waiting' and r[2] == ARGV[2] and number(r[3]) == 0 and r[4] then
      leave_lane(record)
      redis.call('HSET', record, 'state', r[4], 'ended_at', r[5], 'account', r[6], 'deadline', r[7],
        'attempt', r[8] or 0)
      redis.call('HDEL', record, 'due', 'pace', 'replay', 'was', 'was_ended', 'was_account', 'was_deadline', 'was_attempt')
      redis.call('ZREM', P .. 'scheduled', id)
      note(id, cjson.encode({ what = 'replay_stopped', by = ARGV[3], replay = ARGV[2] }))
      finish(id, r[4], false, r[5])
      redis.call('HINCRBY', REPLAY, 'undone', 1)
      answers[#answers + 1] = 1
    else
      answers[#answers + 1] = 0
    end
  end
  return answers
end

function verbs.progress()
  local tally, answer = {}, {}
  for _, id in ipairs(redis.call('ZRANGE', MEMBERS, ARGV[3], ARGV[4])) do
    local r = redis.call('HMGET', P .. 'delivery:' .. id, 'state', 'replay')
    local word = not r[1] and 'forgotten' or r[2] ~= ARGV[2] and 'taken_back' or r[1]
    tally[word] = (tally[word] or 0) + 1
  end
  for word, count in pairs(tally) do
    answer[#answer + 1] = word
    answer[#answer + 1] = count
  end
  return answer
end

local answer = verbs[ARGV[1]]()
write_together()
return answer
