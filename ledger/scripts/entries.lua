-- Write what became of claimed deliveries; each entry is accepted only from the holder of the fence.
-- ARGV: number of entries, then per entry: verb, id, fence, then per verb
--   mark                                    -> 1, 2 superseded meanwhile, 0 stale
--   sent  code, enhanced, words, provider id, microseconds, history or '' -> 5 when the ledger does not know it
--   retry delay (us), spend (0|1), refund (0|1), cause, code, enhanced, words, history
--                                           without a delay: to the head of its lane; refund: the quota's count returns;
--                                           4 when it ended as failed: twice `sender_refused`, others were fine between
--   end   state, cause, code, enhanced, words, history
--   back  refund (0|1)                      unstarted (marked or not): to the head of its lane, permit and attempt returned
--   withdraw history                        nothing of it left, marked or not: to the head of its lane, attempt returned
--   free  (id: conversation, fence: account) verdict (good|bad|none), words, us a mail took (0), connections
--                                           its worker keeps open, sequence
--                                           -> 2 when the account parked just now, 3 when it proved well again; the
--                                           conversation is over
--   keep  (id: worker, fence: account) connections it keeps open between conversations, sequence
--   park  (id: account, fence: state) until (us from now, 0: a person), cause, words -> 1 parked just now, 0 that is no news
--   slow  (id: account, fence: '') hold (us) -> 1 slowed just now, 0 was slow already
--   split (id: account, fence: '') recipients of the refused mail: fewer from now on
--   stall (id: account, fence: '')          a conversation hangs: begin no other for a while
--   wait  (id: account, fence: '') hold (us) begin nothing before
-- Repeating a settled entry is safe: it answers 1 again.
-- Here is what nearly all entries are; the others are in settle.lua. A script has no function it does not need: each is
-- made anew with every call, and every few of them cost as much as a command.
local answers = {}
local i = 2
until_somebody_looks()

-- What was granted in one quota window and leaves in the next counts in that one.
local quotas = {}
local function count_late(account, leased_at)
  local from = quotas[account]
  if not from then
    from = redis.call('HMGET', account_key(account), 'hour_from', 'day_from')
    quotas[account] = from
  end
  if from[1] and number(leased_at) < tonumber(from[1]) then redis.call('HINCRBY', account_key(account), 'hour_used', 1) end
  if from[2] and number(leased_at) < tonumber(from[2]) then redis.call('HINCRBY', account_key(account), 'day_used', 1) end
end

-- What a worker says of itself counts unless it said something later before. Answers whether it keeps fewer now.
local function keeps(account, worker, count, at)
  local before, known_at = kept_by(account, worker)
  if at <= known_at or (count == 0 and known_at == 0) then return false end
  redis.call('HSET', P .. 'kept:' .. account, worker, n2s(count) .. ' ' .. n2s(at))
  return count < before
end

local verbs = {}

function verbs.mark(id, fence)
  local record = P .. 'delivery:' .. id
  local r = redis.call('HMGET', record, 'state', 'fence', 'superseded')
  if r[2] ~= fence or r[1] ~= 'leased' then return r[1] == 'sending' and r[2] == fence and 1 or 0 end
  if r[3] then return 2 end
  redis.call('HSET', record, 'state', 'sending', 'sending_at', WALL)
  return 1
end

function verbs.sent(id, fence)
  local record = P .. 'delivery:' .. id
  local r = redis.call('HMGET', record, 'state', 'fence', 'cause', 'account', 'leased_at', 'due')
  local code, enhanced, words, provider_id, took, history =
    ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5]
  i = i + 6
  if not r[2] then return 5 end
  -- A lower fence than the proof's: the ledger went back to an older copy of itself, and the proof still holds.
  if r[2] ~= fence and tonumber(r[2]) >= tonumber(fence) then return 0 end
  if r[1] == 'sent' then return 1 end
  -- Proof of acceptance wins over every doubt that arose meanwhile with the same fence.
  if r[1] == 'unknown' or r[1] == 'expired' or (r[1] == 'failed' and r[3] == 'crashed') then
    leave(id, r[1])
  elseif r[1] ~= 'sending' and r[1] ~= 'leased' and r[1] ~= 'waiting' then
    return 0
  end
  if provider_id ~= '' then
    redis.call('HSET', record, 'state', 'sent', 'ended_at', WALL, 'code', code, 'enhanced', enhanced, 'words', words,
      'took', took, 'provider_id', provider_id)
    gather('HSET', 'provider', provider_id, id)
  else
    redis.call('HSET', record, 'state', 'sent', 'ended_at', WALL, 'code', code, 'enhanced', enhanced, 'words', words,
      'took', took)
  end
  if r[3] or r[6] then redis.call('HDEL', record, 'cause', 'due') end
  if history ~= '' then note(id, history) end
  if r[1] == 'waiting' then redis.call('ZREM', P .. 'scheduled', id) end
  count_late(r[4], r[5])
  finish(id, 'sent', true)
  return 1
end

function verbs.free(conversation, account)
  local verdict, words, each, kept, at = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
  i = i + 5
  keeps(account, string.match(conversation, '^(.*)%.%d+%.%d+$') or conversation, kept, at)
  redis.call('ZREM', P .. 'troubled', conversation)
  redis.call('ZREM', P .. 'unproven', conversation)
  local key = account_key(account)
  local trouble, opened, probe, seen_bad, before, full, stalled = unpack(redis.call('HMGET', key, 'trouble', 'opened',
    'probe', 'seen_bad', 'each', 'full', 'stalled'))
  local answer = 1
  if redis.call('ZREM', P .. 'sending:' .. account, conversation) == 1 then
    local pace = each ~= '0' and math.floor((tonumber(before or each) + tonumber(each)) / 2)
    if verdict == 'good' then -- whatever was suspected is forgotten
      if pace then
        redis.call('HSET', key, 'proven', 1, 'well_at', NOW, 'each', pace)
      else
        redis.call('HSET', key, 'proven', 1, 'well_at', NOW)
      end
      if trouble or opened or probe then redis.call('HDEL', key, 'trouble', 'opened', 'probe', 'told') end
      if seen_bad then redis.call('HINCRBY', key, 'seen_ok', 1) end
      if probe then answer = 3 end
    else
      if verdict == 'bad' and went_badly(account, words) then answer = 2 end
      if pace then redis.call('HSET', key, 'each', pace) end
    end
  end
  if full or stalled then redis.call('HDEL', key, 'full', 'stalled') end
  if full or stalled or answer == 3 then make_all_due(account) end
  return answer
end

function verbs.keep(worker, account)
  local kept, at = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  i = i + 2
  if keeps(account, worker, kept, at) then make_all_due(account) end
  return 1
end

local function settle_all()
  for _ = 1, tonumber(ARGV[1]) do
    local verb, id, fence = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    i = i + 3
    answers[#answers + 1] = verbs[verb](id, fence)
  end
  write_together()
  return answers
end
