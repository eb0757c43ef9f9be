-- What people do. ARGV: verb, then per verb
--   pause   account, who        resume  account, who
--   replay  deadline (us), who, record lifetime (s), ids...    -> per id 1 replayed, 0 not in a state to replay, -1 unknown id
--   discard who, reason, record lifetime (s), ids...           -> per id 1 discarded, 0 not possible, -1 unknown id
local verbs = {}

function verbs.pause()
  local key = P .. 'account:' .. ARGV[2]
  if redis.call('EXISTS', key) == 0 then return -1 end
  redis.call('HSET', key, 'state', 'paused', 'by', ARGV[3], 'since', NOWS)
  redis.call('HDEL', key, 'reason', 'words', 'until')
  redis.call('ZREM', P .. 'parked', ARGV[2])
  return 1
end

function verbs.resume()
  if redis.call('EXISTS', account_key(ARGV[2])) == 0 then return -1 end
  make_ready(ARGV[2], false)
  return 1
end

function verbs.replay()
  local answers = {}
  for i = 5, #ARGV do
    local id = ARGV[i]
    local record = P .. 'delivery:' .. id
    local r = redis.call('HMGET', record, 'state', 'account', 'class')
    local state = r[1]
    if not state then
      answers[#answers + 1] = -1
    elseif (state == 'failed' or state == 'unknown' or state == 'expired') and redis.call('EXISTS', P .. 'payload:' .. id) == 1 then
      redis.call('ZREM', P .. 'ended:' .. state, id)
      redis.call('PERSIST', record)
      redis.call('PERSIST', P .. 'payload:' .. id)
      redis.call('HINCRBY', record, 'fence', 1)
      redis.call('HINCRBY', record, 'replays', 1)
      redis.call('HSET', record, 'state', 'waiting', 'attempt', 0, 'deadline', ARGV[2])
      redis.call('HDEL', record, 'crashes', 'ended_at', 'due')
      redis.call('ZADD', P .. 'deadline', ARGV[2], id)
      note(id, cjson.encode({ what = 'replayed', by = ARGV[3], was = state }))
      to_lane(id, r[2], r[3], false)
      wake()
      answers[#answers + 1] = 1
    else
      answers[#answers + 1] = 0
    end
  end
  return answers
end

function verbs.discard()
  local answers = {}
  for i = 5, #ARGV do
    local id = ARGV[i]
    local record = P .. 'delivery:' .. id
    local state = redis.call('HGET', record, 'state')
    if not state then
      answers[#answers + 1] = -1
    elseif state == 'failed' or state == 'unknown' or state == 'expired' or state == 'waiting' then
      redis.call('ZREM', P .. 'ended:' .. state, id)
      redis.call('HSET', record, 'state', 'discarded', 'by', ARGV[2], 'reason', ARGV[3], 'ended_at', NOWS)
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

local answer = verbs[ARGV[1]]()
write_together()
return answer
