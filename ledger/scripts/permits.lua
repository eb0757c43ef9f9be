-- What claim alone asks of an account: its quotas, its rates, and room among the connections of all.
local HOUR, DAY = 3600 * SECOND, 86400 * SECOND

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
    redis.call('HSET', key, name .. '_end', whole(ends), name .. '_used', 0, name .. '_from', NOW, name .. '_turning', 1)
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

-- GCRA: how many may go now, and when the next one may. T: interval, B: burst, tat: theoretical arrival time.
-- A little lateness (LATE of the window) is made up for, or every late look would lower the rate; `pace` in accounts.py
-- leaves room for it.
local LATE = 0.015
local function arrival(rule, tat)
  return math.max(tat, NOW - rule[2] * LATE)
end

local function allowance(rule, T, B, tat)
  tat = arrival(rule, tat)
  local free = (B - 1) * T - (tat - NOW)
  if free < 0 then return 0, tat - (B - 1) * T end
  return math.floor(free / T) + 1, NOW
end

-- How many threads all living workers have together.
local function fleet()
  local known = fresh(remembered[2])
  if known then return tonumber(known) end
  local total = 0
  redis.call('ZREMRANGEBYSCORE', P .. 'workers', '-inf', NOW - 60 * SECOND)
  for _, worker in ipairs(redis.call('ZRANGEBYSCORE', P .. 'workers', NOW, '+inf', 'LIMIT', 0, 1000)) do
    total = total + number(redis.call('HGET', P .. 'worker:' .. worker, 'threads'))
  end
  remembered[2] = keep_fresh('fleet', total, 2 * SECOND)
  return total
end

-- How many connections others keep, which of them keeps most, and `count sequence` of this worker. The dead keep none.
local MANY_WORKERS = 64
local function kept_by_others(account, worker, look_closely)
  local flat = redis.call('HGETALL', P .. 'kept:' .. account)
  local total, most, holder, mine, mine_at = 0, 0, nil, 0, 0
  local closely = look_closely or #flat > 2 * MANY_WORKERS
  for index = 1, #flat, 2 do
    local who, count, at = flat[index], string.match(flat[index + 1], '^(%d+) (%d+)$')
    count = number(count)
    if who == worker then
      mine, mine_at = count, at
    elseif closely and number(redis.call('ZSCORE', P .. 'workers', who) or nil) <= NOW then
      redis.call('HDEL', P .. 'kept:' .. account, who)
    else
      total = total + count
      if count > most then most, holder = count, who end
    end
  end
  return total, holder, mine, mine_at
end

local function ask_for_a_connection(account, holder)
  if redis.call('SADD', P .. 'asked:' .. holder, account) == 1 then
    redis.call('LPUSH', P .. 'wake:' .. holder, '1')
    redis.call('EXPIRE', P .. 'wake:' .. holder, 60)
  end
  redis.call('EXPIRE', P .. 'asked:' .. holder, 60)
end
