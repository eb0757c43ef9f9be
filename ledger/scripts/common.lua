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
    redis.call('ZADD', P .. 'due:' .. class, 'LT', NOWS, account)
    return true
  end
  return false
end

local function make_all_due(account)
  local urgent = make_due(account, 'u')
  local bulk = make_due(account, 'b')
  if urgent or bulk then wake() end
end

-- After an outage nobody could renew: living workers get one lease (us) to say what they hold, and nothing is taken
-- from anybody before. Answers until when, or nil.
local function holding(lease)
  local tick = tonumber(redis.call('GET', P .. 'tick') or 0)
  redis.call('SET', P .. 'tick', NOWS)
  if NOW - tick > lease / 2 then redis.call('SET', P .. 'hold', n2s(NOW + lease), 'PX', math.ceil(lease / 1000)) end
  return tonumber(redis.call('GET', P .. 'hold') or nil)
end

local function note(id, text)
  redis.call('RPUSH', P .. 'history:' .. id, NOWS .. ' ' .. text)
  redis.call('LTRIM', P .. 'history:' .. id, -60, -1)
end

local function to_lane(id, account, class, head)
  redis.call(head and 'LPUSH' or 'RPUSH', lane(account, class), id)
  redis.call('ZADD', P .. 'due:' .. class, 'NX', NOWS, account)
end

-- Writes that many deliveries of one call share go out together: a command costs more than its arguments.
local together = {}
local function gather(command, key, first, second)
  local slot = command .. ' ' .. key
  local row = together[slot]
  if not row then
    row = { command, key }
    together[slot] = row
    together[#together + 1] = row
  end
  row[#row + 1] = first
  if second then row[#row + 1] = second end
end
-- Lua's stack takes some 8,000 values; this many go at a time (even: some are pairs).
local SLICE = 4000
local function write_together()
  for _, row in ipairs(together) do
    for from = 3, #row, SLICE do
      local to = math.min(from + SLICE - 1, #row)
      if row[2] == '' then
        redis.call(row[1], unpack(row, from, to))
      else
        redis.call(row[1], row[2], unpack(row, from, to))
      end
    end
  end
  together = {}
end

-- The end of a delivery's life: out of every index of the living, into the one of its end. Only ends that need nobody
-- any more lose their payload; what is `sent` or `discarded` is forgotten later by claim, all else stays for a person.
local function finish(id, state, drop_payload)
  gather('ZREM', P .. 'lease', id)
  gather('ZREM', P .. 'deadline', id)
  gather('ZADD', P .. 'ended:' .. state, NOWS, id)
  if drop_payload then gather('UNLINK', '', P .. 'payload:' .. id) end
end
