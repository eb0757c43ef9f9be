-- Remove records, or what they tell about a person. ARGV: verb, then per verb
--   purge (id, ended at (us))...  -> per id 1 gone, 0 it is not ended or ended anew since, -1 unknown id
--   erase who, then per id: id, and is the person (0|1) its recipient, named in its content, named by servers or people
--         in its record, in its idempotency key; what is for or about the person is given up
--                                  -> per id 1 nothing of the person is left, 0 an attempt is under way, -1 unknown id
local ENDED = { sent = true, failed = true, expired = true, unknown = true, discarded = true, suppressed = true }
local verbs = {}

local function forget_provider(id, provider_id)
  if provider_id and redis.call('HGET', P .. 'provider', provider_id) == id then
    redis.call('HDEL', P .. 'provider', provider_id)
  end
end

function verbs.purge()
  local answers = {}
  for i = 2, #ARGV, 2 do
    local id = ARGV[i]
    local r = redis.call('HMGET', P .. 'delivery:' .. id, 'state', 'ended_at', 'provider_id')
    if r[1] and ENDED[r[1]] and r[2] == ARGV[i + 1] then
      leave(id, r[1])
      -- As where retention forgets: what is held and what is forgotten are together all that ever ended so.
      if r[1] == 'sent' or r[1] == 'discarded' then redis.call('HINCRBY', P .. 'forgotten', r[1], 1) end
      forget_provider(id, r[3])
      redis.call('ZREM', P .. 'forget', id)
      redis.call('UNLINK', P .. 'delivery:' .. id, P .. 'history:' .. id, P .. 'payload:' .. id)
      answers[#answers + 1] = 1
    else
      answers[#answers + 1] = r[1] and 0 or -1
    end
  end
  return answers
end

-- The timeline keeps what happened and when; words of others may name a person.
local function without_words(id, told)
  local key = P .. 'history:' .. id
  local lines = redis.call('LRANGE', key, 0, -1)
  redis.call('DEL', key)
  for _, text in ipairs(lines) do
    local at, json = string.match(text, '^(%d+) (.*)$')
    local ok, facts = pcall(cjson.decode, json or '')
    if ok then
      facts.words, facts.evidence, facts.reason = nil, nil, nil
      if told and facts.by then facts.by = '(erased)' end
      redis.call('RPUSH', key, at .. ' ' .. cjson.encode(facts))
    end
  end
end

local function give_up(id, record, state)
  if state ~= 'sent' and state ~= 'discarded' then
    leave(id, state)
    if state == 'waiting' then leave_lane(record) end
    redis.call('ZREM', P .. 'scheduled', id)
    redis.call('HSET', record, 'state', 'discarded', 'cause', 'erased', 'by', ARGV[2], 'ended_at', WALL)
    finish(id, 'discarded', true)
  end
  redis.call('UNLINK', P .. 'payload:' .. id)
end

local function erase(id, own, in_content, told, key_too)
  local record = P .. 'delivery:' .. id
  local r = redis.call('HMGET', record, 'state', 'provider_id', 'by')
  if not r[1] then return -1 end
  if r[1] == 'leased' or r[1] == 'sending' then return 0 end
  if told and r[3] then redis.call('HSET', record, 'by', '(erased)') end
  if own or in_content then give_up(id, record, r[1]) end
  if own then
    redis.call('HSET', record, 'recipient', '(erased)')
    redis.call('HDEL', record, 'rkey')
  end
  if key_too then redis.call('HDEL', record, 'key') end -- the producer's words
  if own or in_content or told then
    forget_provider(id, r[2])
    redis.call('HDEL', record, 'words', 'provider_id', 'reason')
    without_words(id, told)
  end
  note(id, cjson.encode({ what = 'erased', by = ARGV[2] }))
  return 1
end

function verbs.erase()
  local answers = {}
  for i = 3, #ARGV, 5 do
    answers[#answers + 1] = erase(ARGV[i], ARGV[i + 1] == '1', ARGV[i + 2] == '1', ARGV[i + 3] == '1', ARGV[i + 4] == '1')
  end
  return answers
end

local answer = verbs[ARGV[1]]()
write_together()
return answer
