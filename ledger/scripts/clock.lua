-- What stands behind common in every script that writes: Redis' clock may step, the ledger's time goes on.
-- A step back shows at once: time never was later than the last look for mail (`tick`) or it goes on from there.
-- A step forward looks like an outage, but for a worker that measured how long ago it looked last: `vouched` in claim.
local A_STEP, A_JUMP = 1000000, 60000000

local function set_clock(now)
  NOW, AHEAD = now, now - WALL
  NOWS = n2s(NOW)
  redis.call('SET', P .. 'clock', n2s(AHEAD))
end

if TICK - NOW > A_STEP then set_clock(TICK) end

-- Nobody looked for so long that only the next claim can say whether time passed or the clock jumped: until then what
-- is written takes it that none has passed. Then a wait can only turn out too short, never an hour too long.
local function until_somebody_looks()
  if TICK > 0 and NOW - TICK > A_JUMP then
    NOW, AHEAD = TICK, TICK - WALL
    NOWS = n2s(NOW)
  end
end

-- A worker saw WALL and NOW so long ago, by a clock that nobody sets. Both must have moved further than that: it may
-- have been found out already by another.
local function vouched(wall, now, passed)
  if now > 0 and math.min(WALL - wall, NOW - now) - passed > A_JUMP then set_clock(now + passed) end
end
