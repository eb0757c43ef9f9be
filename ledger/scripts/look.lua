-- What may be told of a person in these records of one tenant; changes nothing. ARGV: tenant, number of the person's
-- fingerprints, the fingerprints, number of texts, the texts (in lower case) that all have to stand in whatever names the
-- person, then ids.
-- Answers per id 0 when it is another tenant's or gone, 3 when the person is its recipient, 2 when the record or its
-- timeline may name the person, else 1. Message-IDs are ours and name nobody.
local keys, texts = {}, {}
local at = 3 + tonumber(ARGV[2])
for i = 3, at - 1 do keys[ARGV[i]] = true end
local first = at + 1 + tonumber(ARGV[at])
for i = at + 1, first - 1 do texts[#texts + 1] = ARGV[i] end
local answers = {}

local function may_name(id, r)
  local told = redis.call('LRANGE', P .. 'history:' .. id, 0, -1)
  for n = 3, 7 do told[#told + 1] = r[n] or '' end
  local text = string.lower(table.concat(told, ' '))
  for _, one in ipairs(texts) do
    if not string.find(text, one, 1, true) then return false end
  end
  return true
end

for i = first, #ARGV do
  local id = ARGV[i]
  local r = redis.call('HMGET', P .. 'delivery:' .. id, 'tenant', 'rkey', 'words', 'reason', 'by', 'key', 'provider_id')
  local answer = 0
  if r[1] == ARGV[1] then answer = may_name(id, r) and 2 or 1 end
  if answer > 0 and r[2] and keys[r[2]] then answer = 3 end
  answers[#answers + 1] = answer
end
return answers
