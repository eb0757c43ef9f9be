-- What stands behind common in every script that writes: Redis' clock may step, the ledger's time goes on.
-- A step back shows at once: time never was later than the last look for mail (`tick`) or it goes on from there.
-- A step forward looks like an outage, but for a worker that measured how long ago it looked last: `vouched` in claim.
local A_STEP, A_JUMP = 1000000, 60000000
local REAL, REAL_AHEAD = NOW, AHEAD -- as Redis' clock has it

local function set_clock(now)
  NOW, AHEAD = now, now - WALL
  DUE, REAL, REAL_AHEAD = NOW, NOW, AHEAD
  redis.pcall('SET', P .. 'clock', AHEAD) -- publishers may only read it: the next claim keeps what they found
end

if TICK - NOW > A_STEP then set_clock(TICK) end

-- Nobody looked for so long that only the next claim can say whether time passed or the clock jumped. Whatever is due
-- now was due when somebody looked last; and scripts that say how long to wait take it that no time has passed since:
-- their waits can turn out too short then, but never an hour too long.
local unsure = TICK > 0 and NOW - TICK > A_JUMP
if unsure then DUE = TICK end

local function until_somebody_looks()
  if unsure then
    NOW, AHEAD = TICK, TICK - WALL
  end
end

-- A worker saw WALL and NOW so long ago, by a clock that nobody sets. Both must have moved further than that: another
-- worker may have found the jump before.
local function vouched(wall, now, passed)
  if now > 0 and math.min(WALL - wall, NOW - now) - passed > A_JUMP then set_clock(now + passed) end
end
