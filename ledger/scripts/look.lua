-- What may be told of a person in these records of one tenant; changes nothing. ARGV: tenant, number of texts, the texts (in
-- lower case) that all have to stand in whatever names the person, then ids.
-- Answers per id 0 when it is another tenant's or gone, else {recipient key, may the record or its timeline name the
-- person (0|1), payload or ''}. Message-IDs are ours and name nobody.
local first = 3 + tonumber(ARGV[2])
local answers = {}

local function all_in(text)
  text = string.lower(text)
  for i = 3, first - 1 do
    if not string.find(text, ARGV[i], 1, true) then return 0 end
  end
  return 1
end

for i = first, #ARGV do
  local id = ARGV[i]
  local record = P .. 'delivery:' .. id
  local r = redis.call('HMGET', record, 'tenant', 'rkey', 'words', 'reason', 'by', 'key', 'provider_id')
  if r[1] ~= ARGV[1] then
    answers[#answers + 1] = 0
  else
    local told = redis.call('LRANGE', P .. 'history:' .. id, 0, -1)
    for n = 3, 7 do told[#told + 1] = r[n] or '' end
    answers[#answers + 1] = { r[2] or '', all_in(table.concat(told, ' ')), redis.call('GET', P .. 'payload:' .. id) or '' }
  end
end
return answers
