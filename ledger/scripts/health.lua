-- What becomes of an account's health when mails go wrong: its breaker, its pace, its state.
local FLOOR, HALVE_EVERY = 0.05, SECOND -- smallest pace; one halving a second
local ROW, SHARE_OF, WINDOW = 3, 5, 60 * SECOND -- breaker: failures in a row; or half of at least so many in a minute
-- A pause grows by a quarter: once the provider is back, nobody waits longer than a quarter of the time it was away.
local FIRST_OPEN, LONGEST_OPEN, LONGER = 15 * SECOND, 300 * SECOND, 1.25

-- Random enough for jitter: the microseconds of now.
local function jitter(share) return 1 - share + 2 * share * (NOW % 1000) / 1000 end

-- Answers whether this is news: a probe that found the same again is none.
local function set_state(account, state, cause, words, lasts)
  local key = account_key(account)
  local news = redis.call('HGET', key, 'told') ~= cause
  local till = lasts > 0 and NOW + lasts or 0
  redis.call('HSET', key, 'state', state, 'reason', cause, 'words', words, 'since', WALL, 'until', till, 'told', cause)
  redis.call('HDEL', key, 'proven', 'probe', 'stalled')
  if lasts > 0 then
    redis.call('ZADD', P .. 'parked', till, account)
  else
    redis.call('ZREM', P .. 'parked', account)
  end
  make_all_due(account) -- claim looks once more: its mail may overflow
  return news
end

-- Multiplicative decrease, and nothing at all for `hold` microseconds. Answers whether the account ran at full pace.
local function slow_down(account, hold)
  local key = account_key(account)
  local a = read_account(account)
  local before = pace_factor(a)
  if not a.slowed_at or NOW - number(a.slowed_at) >= HALVE_EVERY then
    redis.call('HSET', key, 'factor', math.max(FLOOR, before / 2), 'factor_at', NOW, 'slowed_at', NOW)
  end
  local till = NOW + hold
  if till > number(a.hold) then redis.call('HSET', key, 'hold', whole(till)) end
  return before >= 1
end

-- No conversation came about. Answers whether the breaker opened, and that is news.
local function went_badly(account, words)
  local key = account_key(account)
  local a = read_account(account)
  if a.state ~= 'ready' then return false end
  if not a.seen_at or NOW - number(a.seen_at) > WINDOW then
    redis.call('HSET', key, 'seen_at', NOW, 'seen_ok', 0, 'seen_bad', 0)
    a.seen_ok, a.seen_bad = 0, 0
  end
  local row = redis.call('HINCRBY', key, 'trouble', 1)
  local bad = redis.call('HINCRBY', key, 'seen_bad', 1)
  local all = bad + number(a.seen_ok)
  if not (a.probe or row >= ROW or (all >= SHARE_OF and bad * 2 >= all)) then return false end
  local opened = redis.call('HINCRBY', key, 'opened', 1)
  local lasts = math.min(LONGEST_OPEN, FIRST_OPEN * LONGER ^ math.min(opened - 1, 30)) * jitter(0.2)
  return set_state(account, 'parked', 'unreachable', words, math.floor(lasts))
end

-- A quota's count is given back in the window it was taken from, or not at all.
local function release_quota(key, a, count, taken_at)
  for _, name in ipairs({ 'hour', 'day' }) do
    if number(a[name .. '_used']) >= count and taken_at >= number(a[name .. '_from']) then
      redis.call('HINCRBY', key, name .. '_used', -count)
    end
  end
end
