-- Whether something may happen once more: at most ARGV[2] times in any ARGV[3] microseconds. ARGV[1] is its key.
-- Counts it when it may. Answers 0, or the microseconds to wait.
local key, most, window = P .. ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local oldest = tonumber(redis.call('LINDEX', key, most - 1) or nil)
if oldest and oldest + window > NOW then return math.ceil(oldest + window - NOW) end
redis.call('LPUSH', key, NOW)
redis.call('LTRIM', key, 0, most - 1)
redis.call('PEXPIRE', key, math.ceil(window / 1000))
return 0
