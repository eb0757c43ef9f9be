-- Take out of a lane what does not wait there any more, so that its length is how many wait. ARGV: account, class, first
-- and last place. Answers {looked at, taken out}.
local key = lane(ARGV[1], ARGV[2])
local first = tonumber(ARGV[3])
local ids = redis.call('LRANGE', key, first, ARGV[4])
local out = 0
for at, id in ipairs(ids) do
  local r = redis.call('HMGET', P .. 'delivery:' .. id, 'state', 'account')
  if r[1] ~= 'waiting' or r[2] ~= ARGV[1] then
    redis.call('LSET', key, first + at - 1, '')
    out = out + 1
  end
end
if out > 0 then redis.call('LREM', key, 0, '') end
return { #ids, out }
