-- Shared by every script. Times are whole microseconds; every loop is bounded by an argument.
-- Two clocks: WALL is Redis time, which says when something happened. NOW is the ledger's own time, in which it waits:
-- leases, due times, deadlines, rates, quotas, pauses. It is AHEAD of the other by what that one was found to have
-- stepped (clock.lua), so that an hour's step makes nobody wait an hour, nor sends what is not due.
local P = KEYS[1]
local function us()
  local t = redis.call('TIME')
  return t[1] * 1000000 + t[2]
end
-- Commands take whole numbers as they are; text is made of them only where they stand in one, for that is dear.
local function whole(x) return math.floor(x + 0.5) end
local function n2s(x) return string.format('%.0f', x) end
local WALL = us()
local known = redis.call('MGET', P .. 'clock', P .. 'tick')
local AHEAD, TICK = tonumber(known[1] or 0), tonumber(known[2] or 0)
local NOW = WALL + AHEAD
local DUE = NOW -- since when that is due which is due now

-- Redis lets keys expire by its own clock, however wrong. What must be fresh says itself how long it is, under names of
-- its own: workers of before read other things under the plain ones.
-- Both answer or take the text that stands there, for those who read it together with other keys.
local function keep_fresh(key, value, lasts)
  local text = value .. ' ' .. n2s(NOW + lasts)
  redis.call('SET', P .. 'fresh:' .. key, text)
  return text
end
local function fresh(text)
  local value, till = string.match(text or '', '^(%S+) (%d+)$')
  return till and tonumber(till) > NOW and value or nil
end

local function lane(account, class) return P .. 'lane:' .. account .. ':' .. class end

local function wake()
  if redis.call('LLEN', P .. 'wake') < 2 then redis.call('LPUSH', P .. 'wake', '1') end
end

-- An account is due when it has mail and nothing is known to hold it back; claim finds out the rest.
local function make_due(account, class)
  if redis.call('LLEN', lane(account, class)) > 0 then
    redis.call('ZADD', P .. 'due:' .. class, 'LT', DUE, account)
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
-- from anybody before. `known` is what `holding` said until now. Answers until when, or nil.
local function holding(lease, known)
  redis.call('SET', P .. 'tick', NOW)
  local till = tonumber(known or 0)
  if NOW - TICK > lease / 2 then
    till = NOW + lease
    redis.call('SET', P .. 'holding', till)
  end
  return till > NOW and till or nil
end

local function note(id, text)
  redis.call('RPUSH', P .. 'history:' .. id, n2s(WALL) .. ' ' .. text)
  redis.call('LTRIM', P .. 'history:' .. id, -60, -1)
end

local function to_lane(id, account, class, head)
  redis.call(head and 'LPUSH' or 'RPUSH', lane(account, class), id)
  redis.call('ZADD', P .. 'due:' .. class, 'NX', DUE, account)
end

-- Writes that many deliveries of one call share go out together: a command costs more than its arguments. What names its
-- keys itself is gathered under ''.
local together = {}
local function gather(command, key, first, second)
  local rows = together[command]
  if not rows then
    rows = {}
    together[command] = rows
  end
  local row = rows[key]
  if not row then
    row = { command, key }
    rows[key] = row
    together[#together + 1] = row
  end
  local n = #row + 1
  row[n] = first
  if second then row[n + 1] = second end
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
        redis.call(row[1], P .. row[2], unpack(row, from, to))
      end
    end
  end
  together = {}
end

-- What waits for a person is found by its group: state, cause, account, kind and tenant in common. `groups` names them.
local WAITS = { failed = true, unknown = true, expired = true, suppressed = true }
local KEY_KEPT = 90 * 86400 -- seconds: as long as people may look for a failure by its idempotency key

local function into_group(id, state, at)
  local record = P .. 'delivery:' .. id
  local r = redis.call('HMGET', record, 'cause', 'account', 'kind', 'tenant', 'key')
  local name = cjson.encode({ state, r[1] or '', r[2] or '', r[3] or '', r[4] or '' })
  local group = string.sub(redis.sha1hex(name), 1, 16)
  redis.call('HSETNX', P .. 'groups', group, name)
  redis.call('HSET', record, 'group', group)
  redis.call('ZADD', P .. 'group:' .. group, at, id)
  if r[5] then redis.call('EXPIRE', P .. 'key:' .. r[5], KEY_KEPT, 'GT') end
end

-- An end is undone, or becomes another: out of its index and its group.
local function leave(id, state)
  redis.call('ZREM', P .. 'ended:' .. state, id)
  local group = redis.call('HGET', P .. 'delivery:' .. id, 'group')
  if not group then return end
  redis.call('HDEL', P .. 'delivery:' .. id, 'group')
  redis.call('ZREM', P .. 'group:' .. group, id)
  if redis.call('EXISTS', P .. 'group:' .. group) == 0 then redis.call('HDEL', P .. 'groups', group) end
end

-- People gave it up while it stood in a lane: that lane is tidied when they are done, or looks longer than it is.
local function leave_lane(record)
  local r = redis.call('HMGET', record, 'account', 'class')
  redis.call('SADD', P .. 'untidy', r[2] .. ':' .. r[1])
end

-- How long (us) a tenant's ended deliveries are kept; `keep` holds seconds by tenant, and for all others under ''.
local keeps
local function kept_for(id)
  if not keeps then
    keeps = { several = redis.call('HLEN', P .. 'keep') > 1, [''] = redis.call('HGET', P .. 'keep', '') or 30 * 86400 }
  end
  local seconds = keeps['']
  if keeps.several then
    local tenant = redis.call('HGET', P .. 'delivery:' .. id, 'tenant') or ''
    if not keeps[tenant] then keeps[tenant] = redis.call('HGET', P .. 'keep', tenant) or keeps[''] end
    seconds = keeps[tenant]
  end
  return tonumber(seconds) * 1000000
end

-- The end of a delivery's life: out of every index of the living, into the one of its end. Only ends that need nobody
-- any more lose their payload; what is `sent` or `discarded` is forgotten later by claim, all else stays for a person.
local function finish(id, state, drop_payload, at)
  gather('ZREM', 'lease', id)
  gather('ZREM', 'deadline', id)
  gather('ZADD', 'ended:' .. state, at or WALL, id)
  if drop_payload then gather('UNLINK', '', P .. 'payload:' .. id) end
  if WAITS[state] then
    into_group(id, state, at or WALL)
  else
    gather('ZADD', 'forget', NOW + kept_for(id), id)
  end
end
