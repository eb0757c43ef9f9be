-- Shared by every script. Time is Redis time in whole microseconds; every loop is bounded by an argument.
local P = KEYS[1]
local function us()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end
local function n2s(x) return string.format('%.0f', x) end
local NOW = us()
local NOWS = n2s(NOW)

local function lane(account, class) return P .. 'lane:' .. account .. ':' .. class end

local function wake()
  if redis.call('LLEN', P .. 'wake') < 2 then redis.call('LPUSH', P .. 'wake', '1') end
end

-- An account is due when it has mail and nothing is known to hold it back; claim finds out the rest.
local function make_due(account, class)
  if redis.call('LLEN', lane(account, class)) > 0 then
    redis.call('ZADD', P .. 'due:' .. class, NOWS, account)
    return true
  end
  return false
end

local function make_all_due(account)
  local urgent = make_due(account, 'u')
  local bulk = make_due(account, 'b')
  if urgent or bulk then wake() end
end

local function note(id, text)
  redis.call('RPUSH', P .. 'history:' .. id, NOWS .. ' ' .. text)
  redis.call('LTRIM', P .. 'history:' .. id, -60, -1)
end

local function to_lane(id, account, class, head)
  redis.call(head and 'LPUSH' or 'RPUSH', lane(account, class), id)
  redis.call('ZADD', P .. 'due:' .. class, 'NX', NOWS, account)
end

-- The end of a delivery's life: out of every index of the living, into the one of its end.
-- kept: seconds the record stays; 0 keeps it until a person removes it. Its payload goes only with `sent`-like ends.
local function finish(id, state, kept, drop_payload)
  redis.call('ZREM', P .. 'lease', id)
  redis.call('ZREM', P .. 'scheduled', id)
  redis.call('ZREM', P .. 'deadline', id)
  redis.call('ZADD', P .. 'ended:' .. state, NOWS, id)
  if drop_payload then redis.call('UNLINK', P .. 'payload:' .. id) end
  if kept > 0 then
    redis.call('EXPIRE', P .. 'delivery:' .. id, kept)
    if not drop_payload then redis.call('EXPIRE', P .. 'payload:' .. id, kept) end
    redis.call('EXPIRE', P .. 'history:' .. id, kept)
  end
end
