-- The named fields of many deliveries, in one answer. ARGV: number of fields, the fields, ids... Answers per id its values.
local count = tonumber(ARGV[1])
local fields, answers = {}, {}
for i = 2, count + 1 do fields[#fields + 1] = ARGV[i] end
for i = count + 2, #ARGV do answers[#answers + 1] = redis.call('HMGET', P .. 'delivery:' .. ARGV[i], unpack(fields)) end
return answers
