-- What an account may do now: its state, pace, quotas, health. Fields of the hash account:<name>:
--   state ready|parked|paused|needs_login, reason, words, since, until, by     cap, second_*, minute_* (GCRA)
--   hour_limit, hour_end, hour_used, hour_from, hour_turning, the same for day, counts (quotas)
--   factor, factor_at, slowed_at, hold (adaptive pace)
--   each (microseconds a mail takes, the last conversations first)
--   trouble, opened, seen_ok, seen_bad, seen_at (circuit breaker)              proven, probe, stalled, full
--   max_rcpt, fallback, overflow, credential
local SECOND = 1000000
local FLOOR, HALVE_EVERY, RECOVERY = 0.05, SECOND, 0.01 -- smallest pace; one halving a second; regained a second
local ROW, SHARE_OF, WINDOW = 3, 5, 60 * SECOND -- breaker: failures in a row; or half of at least so many in a minute
local FIRST_OPEN, LONGEST_OPEN = 15 * SECOND, 300 * SECOND

local function account_key(account) return P .. 'account:' .. account end

local function read_account(account)
  local flat = redis.call('HGETALL', account_key(account))
  local a = {}
  for index = 1, #flat, 2 do a[flat[index]] = flat[index + 1] end
  return a
end

local function number(value, default) return tonumber(value or default or 0) end

-- The share of its pace an account has now: halved by trouble, regained bit by bit.
local function pace_factor(a)
  if not a.factor then return 1 end
  return math.min(1, number(a.factor, 1) + (NOW - number(a.factor_at)) / SECOND * RECOVERY)
end

-- Random enough for jitter: the microseconds of now.
local function jitter(share) return 1 - share + 2 * share * (NOW % 1000) / 1000 end

-- Answers whether this is news: a probe that found the same again is none.
local function set_state(account, state, cause, words, lasts)
  local key = account_key(account)
  local news = redis.call('HGET', key, 'told') ~= cause
  local till = lasts > 0 and n2s(NOW + lasts) or '0'
  redis.call('HSET', key, 'state', state, 'reason', cause, 'words', words, 'since', NOWS, 'until', till, 'told', cause)
  redis.call('HDEL', key, 'proven', 'probe', 'stalled')
  if lasts > 0 then
    redis.call('ZADD', P .. 'parked', till, account)
  else
    redis.call('ZREM', P .. 'parked', account)
  end
  make_all_due(account) -- claim looks once more: its mail may overflow
  return news
end

local function make_ready(account, probe)
  local key = account_key(account)
  redis.call('HSET', key, 'state', 'ready', 'since', NOWS)
  redis.call('HDEL', key, 'by', 'reason', 'words', 'until', 'hold', 'stalled', 'trouble', 'seen_ok', 'seen_bad', 'seen_at')
  if probe then
    redis.call('HSET', key, 'probe', 1)
  else
    redis.call('HDEL', key, 'probe', 'opened', 'factor', 'factor_at', 'told')
  end
  redis.call('ZREM', P .. 'parked', account)
  make_all_due(account)
end

-- Multiplicative decrease, and nothing at all for `hold` microseconds. Answers whether the account ran at full pace.
local function slow_down(account, hold)
  local key = account_key(account)
  local a = read_account(account)
  local before = pace_factor(a)
  if not a.slowed_at or NOW - number(a.slowed_at) >= HALVE_EVERY then
    redis.call('HSET', key, 'factor', math.max(FLOOR, before / 2), 'factor_at', NOWS, 'slowed_at', NOWS)
  end
  local till = NOW + hold
  if till > number(a.hold) then redis.call('HSET', key, 'hold', n2s(till)) end
  return before >= 1
end

-- A conversation came about: whatever was suspected is forgotten. Answers whether it was a probe.
local function went_well(account)
  local key = account_key(account)
  local a = redis.call('HMGET', key, 'trouble', 'opened', 'probe', 'seen_bad')
  redis.call('HSET', key, 'proven', 1, 'well_at', NOWS)
  if a[1] or a[2] or a[3] then redis.call('HDEL', key, 'trouble', 'opened', 'probe', 'told') end
  if a[4] then redis.call('HINCRBY', key, 'seen_ok', 1) end
  return a[3]
end

-- No conversation came about. Answers whether the breaker opened, and that is news.
local function went_badly(account, words)
  local key = account_key(account)
  local a = read_account(account)
  if a.state ~= 'ready' then return false end
  if not a.seen_at or NOW - number(a.seen_at) > WINDOW then
    redis.call('HSET', key, 'seen_at', NOWS, 'seen_ok', 0, 'seen_bad', 0)
    a.seen_ok, a.seen_bad = 0, 0
  end
  local row = redis.call('HINCRBY', key, 'trouble', 1)
  local bad = redis.call('HINCRBY', key, 'seen_bad', 1)
  local all = bad + number(a.seen_ok)
  if not (a.probe or row >= ROW or (all >= SHARE_OF and bad * 2 >= all)) then return false end
  local opened = redis.call('HINCRBY', key, 'opened', 1)
  local lasts = math.min(LONGEST_OPEN, FIRST_OPEN * 2 ^ math.min(opened - 1, 10)) * jitter(0.2)
  return set_state(account, 'parked', 'unreachable', words, math.floor(lasts))
end

-- Quotas: counted windows whose next end workers write down (days have time zones); a missed one starts anew here.
-- What was granted before the end and leaves after it counts in the new window (`sent` adds it): until all conversations
-- of before are over, room is kept for what they may still send, `most` each. Answers what is left, the window's end,
-- and whether room is kept.
local function quota_left(account, a, name, length, most)
  local limit = tonumber(a[name .. '_limit'])
  if not limit then return nil, NOW, false end
  local key, busy = account_key(account), P .. 'sending:' .. account
  local ends = number(a[name .. '_end'])
  if NOW >= ends then
    ends = ends > 0 and ends + math.ceil((NOW - ends + 1) / length) * length or NOW + length
    a[name .. '_used'], a[name .. '_turning'] = '0', '1'
    redis.call('HSET', key, name .. '_end', n2s(ends), name .. '_used', 0, name .. '_from', NOWS, name .. '_turning', 1)
  end
  local kept = 0
  if a[name .. '_turning'] then
    kept = redis.call('ZCARD', busy) * most
    if kept == 0 then redis.call('HDEL', key, name .. '_turning') end
  end
  return math.max(0, limit - number(a[name .. '_used']) - kept), ends, kept > 0
end

local function spent_quota(a)
  for _, name in ipairs({ 'hour', 'day' }) do
    local limit = tonumber(a[name .. '_limit'])
    if limit and NOW < number(a[name .. '_end']) and number(a[name .. '_used']) >= limit then return true end
  end
  return false
end

-- A quota's count is given back in the window it was taken from, or not at all.
local function release_quota(key, a, count, taken_at)
  for _, name in ipairs({ 'hour', 'day' }) do
    if number(a[name .. '_used']) >= count and taken_at >= number(a[name .. '_from']) then
      redis.call('HINCRBY', key, name .. '_used', -count)
    end
  end
end

local HOUR, DAY = 3600 * SECOND, 86400 * SECOND

-- GCRA: how many may go now, and when the next one may. T: interval, B: burst, tat: theoretical arrival time.
-- A little lateness is made up for, or every late look would lower the rate; `pace` in accounts.py leaves room for it.
local RULES = { { 'second', SECOND }, { 'minute', 60 * SECOND } }

local function arrival(rule, T, tat) return math.max(tat, NOW - math.min(T / 2, rule[2] * 0.0375)) end

local function allowance(rule, T, B, tat)
  tat = arrival(rule, T, tat)
  local free = (B - 1) * T - (tat - NOW)
  if free < 0 then return 0, tat - (B - 1) * T end
  return math.floor(free / T) + 1, NOW
end

-- How many threads all living workers have together.
local function fleet()
  local known = redis.call('GET', P .. 'fleet')
  if known then return tonumber(known) end
  local total = 0
  redis.call('ZREMRANGEBYSCORE', P .. 'workers', '-inf', n2s(NOW - 60 * SECOND))
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', P .. 'workers', NOWS, '+inf', 'LIMIT', 0, 1000)) do
    total = total + number(redis.call('HGET', P .. 'worker:' .. worker, 'threads'))
  end
  redis.call('SET', P .. 'fleet', total, 'PX', 2000)
  return total
end
