-- The entries of mails that do not go well, and what they mean for accounts. ARGV: see entries.lua.
-- The last attempt starts this long (us) before the deadline instead of never.
local LAST_CALL = 5000000
-- A hanging conversation keeps others away for so long (us) unless it is reported again.
local STALL = 10000000
-- A quota counts recipients or mails; of a mail to several, one of them (`whole`) stands for the mail.
local function give_quota_back(account, a, whole, taken_at)
  if whole or a.counts == 'r' then release_quota(account_key(account), a, 1, number(taken_at)) end
end

-- Only the last grant of a rate can be undone exactly: taken back from an older one, a permit would let the rate be
-- exceeded.
local function release_permit(account, a, conversation)
  if not a.granted or not conversation or a.granted ~= string.match(conversation, '^(.*)%.%d+$') then return false end
  local given = false
  for _, rule in ipairs(RULES) do
    local T, tat = a[rule[1] .. '_t'], a[rule[1] .. '_tat']
    if T and tat then
      redis.call('HSET', account_key(account), rule[1] .. '_tat', whole(tonumber(tat) - tonumber(T)))
      given = true
    end
  end
  return given
end

local function holds(r, fence) return r[2] == fence and (r[1] == 'leased' or r[1] == 'sending') end

verbs['retry'] = function(id, fence)
  local record = P .. 'delivery:' .. id
  local r = redis.call('HMGET', record, 'state', 'fence', 'deadline', 'account', 'class', 'leased_at')
  local delay, spend, refund, cause, code, enhanced, words, history =
    tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7]
  i = i + 8
  if not holds(r, fence) then return r[2] == fence and (r[1] == 'waiting' or r[1] == 'expired') and 1 or 0 end
  if spend == '0' then
    redis.call('HINCRBY', record, 'attempt', -1)
    redis.call('HINCRBY', record, 'deferred', 1)
  end
  local deadline = tonumber(r[3])
  local due = NOW + delay
  note(id, history)
  -- A refusal that blames the account may be about this mail alone: when others went well since the first one, it is.
  local blamed = cause == 'sender_refused'
  if blamed then
    local before = tonumber(redis.call('HGET', record, 'blamed_at') or nil)
    if before and number(redis.call('HGET', account_key(r[4]), 'well_at')) > before then
      redis.call('HSET', record, 'state', 'failed', 'ended_at', WALL, 'cause', cause, 'code', code, 'enhanced', enhanced, 'words', words)
      finish(id, 'failed', false)
      return 4
    end
    redis.call('HSET', record, 'blamed_at', NOW)
  end
  if refund == '1' then give_quota_back(r[4], read_account(r[4]), true, r[6]) end
  if due >= deadline then due = deadline - LAST_CALL end
  if due <= NOW and (delay > 0 or deadline <= NOW) then
    redis.call('HSET', record, 'state', 'expired', 'ended_at', WALL, 'cause', cause, 'code', code, 'enhanced', enhanced, 'words', words)
    finish(id, 'expired', false)
    return 1
  end
  redis.call('HSET', record, 'state', 'waiting', 'cause', cause, 'code', code, 'enhanced', enhanced, 'words', words)
  redis.call('HDEL', record, 'crashes')
  gather('ZREM', 'lease', id)
  if delay > 0 then
    redis.call('HSET', record, 'due', whole(due))
    redis.call('ZADD', P .. 'scheduled', whole(due), id)
  else
    redis.call('HDEL', record, 'due')
    to_lane(id, r[4], r[5], not blamed)
    wake()
  end
  return 1
end

verbs['end'] = function(id, fence)
  local record = P .. 'delivery:' .. id
  local r = redis.call('HMGET', record, 'state', 'fence')
  local state, cause, code, enhanced, words, history =
    ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  i = i + 6
  if not holds(r, fence) then return r[2] == fence and r[1] == state and 1 or 0 end
  redis.call('HSET', record, 'state', state, 'cause', cause, 'ended_at', WALL, 'code', code, 'enhanced', enhanced, 'words', words)
  note(id, history)
  finish(id, state, state == 'discarded')
  return 1
end

function verbs.back(id, fence)
  local refund = ARGV[i] == '1'
  i = i + 1
  local record = P .. 'delivery:' .. id
  local r = redis.call('HMGET', record, 'state', 'fence', 'account', 'class', 'conversation', 'leased_at')
  if not holds(r, fence) then return r[1] == 'waiting' and r[2] == fence and 1 or 0 end
  redis.call('HSET', record, 'state', 'waiting')
  redis.call('HINCRBY', record, 'attempt', -1)
  redis.call('ZREM', P .. 'lease', id)
  to_lane(id, r[3], r[4], true)
  local a = read_account(r[3])
  give_quota_back(r[3], a, refund, r[6])
  if refund and release_permit(r[3], a, r[5]) then make_due(r[3], r[4]) end
  wake()
  return 1
end

-- Who holds the fence knows that nothing left, even where another worker had to doubt it meanwhile.
function verbs.withdraw(id, fence)
  local record = P .. 'delivery:' .. id
  local r = redis.call('HMGET', record, 'state', 'fence', 'account', 'class', 'cause', 'deadline')
  local history = ARGV[i]
  i = i + 1
  local doubted = r[1] == 'unknown' and r[5] == 'worker_died' and r[2] == fence
  if not (holds(r, fence) or doubted) then return r[2] == fence and r[1] == 'waiting' and 1 or 0 end
  if doubted then
    leave(id, 'unknown')
    redis.call('HDEL', record, 'ended_at')
    redis.call('HINCRBY', record, 'crashes', -1) -- nobody died
    redis.call('ZADD', P .. 'deadline', r[6], id)
  end
  redis.call('HSET', record, 'state', 'waiting', 'cause', 'withdrawn')
  redis.call('HINCRBY', record, 'attempt', -1)
  redis.call('HINCRBY', record, 'deferred', 1)
  note(id, history)
  redis.call('ZREM', P .. 'lease', id)
  to_lane(id, r[3], r[4], true)
  wake()
  return 1
end

function verbs.park(account, state)
  local lasts, cause, words = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  i = i + 3
  if redis.call('HGET', account_key(account), 'state') ~= 'ready' then return 0 end
  return set_state(account, state, cause, words, lasts) and 1 or 0
end

function verbs.slow(account)
  local hold = tonumber(ARGV[i])
  i = i + 1
  return slow_down(account, hold) and 1 or 0
end

function verbs.split(account)
  local size = tonumber(ARGV[i])
  i = i + 1
  local most = math.max(1, math.floor(size / 2))
  if most < number(redis.call('HGET', account_key(account), 'max_rcpt'), most + 1) then
    redis.call('HSET', account_key(account), 'max_rcpt', most)
  end
  return 1
end

function verbs.stall(account)
  redis.call('HSET', account_key(account), 'stalled', NOW + STALL)
  return 1
end

function verbs.wait(account)
  local till = NOW + tonumber(ARGV[i])
  i = i + 1
  if till > number(redis.call('HGET', account_key(account), 'hold')) then
    redis.call('HSET', account_key(account), 'hold', whole(till))
  end
  return 1
end

return settle_all()
