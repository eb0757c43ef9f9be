-- What an account may do now: its state, pace, quotas, health. Fields of the hash account:<name>:
--   state ready|parked|paused|needs_login, reason, words, since, until, by     cap, second_*, minute_* (GCRA)
--   hour_limit, hour_end, hour_used, hour_from, hour_turning, the same for day, counts (quotas)
--   factor, factor_at, slowed_at, hold (adaptive pace)
--   each (microseconds a mail takes, the last conversations first)
--   trouble, opened, seen_ok, seen_bad, seen_at (circuit breaker)              proven, probe, stalled, full
--   drains (until when workers that drain may hold conversations)
--   max_rcpt, fallback, overflow, credential                                   ahead (urgent mails while bulk waited)
local SECOND = 1000000

local function account_key(account) return P .. 'account:' .. account end

local function number(value, default) return tonumber(value or default or 0) end

-- Connections that workers keep open between conversations, for providers count those too: `kept:<account>` holds
-- `count sequence` by worker. Together with the conversations in progress they never exceed the account's cap; whoever
-- needs one that another worker keeps asks for it: that worker sends over it, or closes it and says so.
local function kept_by(account, worker)
  local count, at = string.match(redis.call('HGET', P .. 'kept:' .. account, worker) or '', '^(%d+) (%d+)$')
  return number(count), number(at)
end
