-- What people do. ARGV: verb, then per verb
--   pause   account, who        resume  account, who
--   discard who, reason, ids...  -> per id 1 discarded, 0 not possible, -1 unknown id
--   resolve who, ids...          -> per id 1 an unknown outcome is sent, 0 not possible, -1 unknown id
--   retry   who, ids...          -> per id 1 its next attempt is due now, 0 it waits for none, -1 unknown id
--   correct who, id, new id      -> 1 the new delivery took the place of the old one, 0 not possible, -1 unknown id
local verbs = {}

function verbs.pause()
  local key = P .. 'account:' .. ARGV[2]
  if redis.call('EXISTS', key) == 0 then return -1 end
  redis.call('HSET', key, 'state', 'paused', 'by', ARGV[3], 'since', WALL)
  redis.call('HDEL', key, 'reason', 'words', 'until')
  redis.call('ZREM', P .. 'parked', ARGV[2])
  return 1
end

function verbs.resume()
  if redis.call('EXISTS', account_key(ARGV[2])) == 0 then return -1 end
  make_ready(ARGV[2], false)
  return 1
end

function verbs.discard()
  local answers = {}
  for i = 4, #ARGV do
    local id = ARGV[i]
    local record = P .. 'delivery:' .. id
    local state = redis.call('HGET', record, 'state')
    if not state then
      answers[#answers + 1] = -1
    elseif WAITS[state] or state == 'waiting' then
      leave(id, state)
      if state == 'waiting' then leave_lane(record) end
      redis.call('HSET', record, 'state', 'discarded', 'by', ARGV[2], 'reason', ARGV[3], 'ended_at', WALL)
      note(id, cjson.encode({ what = 'discarded', by = ARGV[2], reason = ARGV[3], was = state }))
      redis.call('ZREM', P .. 'scheduled', id)
      finish(id, 'discarded', true)
      answers[#answers + 1] = 1
    else
      answers[#answers + 1] = 0
    end
  end
  return answers
end

-- Not for what has its time from who published or replays it: that was never tried. All are due at once, so their ids
-- say which goes first: the one accepted first.
function verbs.retry()
  local answers = {}
  for i = 3, #ARGV do
    local id = ARGV[i]
    local record = P .. 'delivery:' .. id
    local r = redis.call('HMGET', record, 'state', 'attempt', 'deferred')
    local due = r[1] == 'waiting' and (number(r[2]) > 0 or r[3]) and tonumber(redis.call('ZSCORE', P .. 'scheduled', id) or nil)
    if due and due > DUE then
      redis.call('HSET', record, 'due', whole(DUE))
      redis.call('ZADD', P .. 'scheduled', whole(DUE), id)
      note(id, cjson.encode({ what = 'hurried', by = ARGV[2] }))
    end
    answers[#answers + 1] = due and 1 or r[1] and 0 or -1
  end
  if #answers > 0 then wake() end
  return answers
end

function verbs.resolve()
  local answers = {}
  for i = 3, #ARGV do
    local id = ARGV[i]
    local record = P .. 'delivery:' .. id
    local state = redis.call('HGET', record, 'state')
    if state == 'unknown' then
      leave(id, state)
      redis.call('HSET', record, 'state', 'sent', 'by', ARGV[2])
      redis.call('HDEL', record, 'cause', 'due')
      note(id, cjson.encode({ what = 'resolved', by = ARGV[2], was = state }))
      finish(id, 'sent', true)
    end
    answers[#answers + 1] = state == 'unknown' and 1 or state and 0 or -1
  end
  return answers
end

function verbs.correct()
  local who, old, new = ARGV[2], ARGV[3], ARGV[4]
  local record = P .. 'delivery:' .. old
  local r = redis.call('HMGET', record, 'state', 'replaced_by')
  if not r[1] or redis.call('EXISTS', P .. 'delivery:' .. new) == 0 then return -1 end
  if r[2] == new then return 1 end
  if not WAITS[r[1]] then return 0 end
  leave(old, r[1])
  redis.call('HSET', record, 'state', 'discarded', 'cause', 'corrected', 'by', who, 'replaced_by', new, 'ended_at', WALL)
  note(old, cjson.encode({ what = 'corrected', by = who, was = r[1], new = new }))
  redis.call('HSET', P .. 'delivery:' .. new, 'corrects', old)
  note(new, cjson.encode({ what = 'corrects', by = who, old = old }))
  finish(old, 'discarded', false)
  return 1
end

local answer = verbs[ARGV[1]]()
write_together()
return answer
