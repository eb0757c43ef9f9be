-- What claim and people share about accounts. RECOVERY: the share of its pace that an account regains a second.
local RECOVERY = 0.01
-- The rates an account may have, and what each counts in.
local RULES = { { 'second', SECOND }, { 'minute', 60 * SECOND } }

local function read_account(account)
  local flat = redis.call('HGETALL', account_key(account))
  local a = {}
  for index = 1, #flat, 2 do a[flat[index]] = flat[index + 1] end
  return a
end

-- The share of its pace an account has now: halved by trouble, regained bit by bit.
local function pace_factor(a)
  if not a.factor then return 1 end
  return math.min(1, number(a.factor, 1) + (NOW - number(a.factor_at)) / SECOND * RECOVERY)
end

local function make_ready(account, probe)
  local key = account_key(account)
  redis.call('HSET', key, 'state', 'ready', 'since', WALL)
  redis.call('HDEL', key, 'by', 'reason', 'words', 'until', 'hold', 'stalled', 'trouble', 'seen_ok', 'seen_bad', 'seen_at')
  if probe then
    redis.call('HSET', key, 'probe', 1)
  else
    redis.call('HDEL', key, 'probe', 'opened', 'factor', 'factor_at', 'told')
  end
  redis.call('ZREM', P .. 'parked', account)
  make_all_due(account)
end
