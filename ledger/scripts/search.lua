-- Look through a slice of an index for deliveries that fit; changes nothing. ARGV: key, first and last rank, newest first
-- (0|1), then account, kind, tenant, cause ('' for any), text (lower case, ''), accepted since and until (us, 0), ids
-- wanted (0|1). Answers {how many were looked at, how many fit, oldest and newest score among them, ids...}; a list has
-- scores of 0.
local account, kind, tenant, cause, text = ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local since, until_ = tonumber(ARGV[10]), tonumber(ARGV[11])
local key, list = P .. ARGV[1], false
local found
local kind_of_key = redis.call('TYPE', key).ok
if kind_of_key == 'list' then
  found, list = redis.call('LRANGE', key, ARGV[2], ARGV[3]), true
elseif kind_of_key == 'zset' then
  found = redis.call(ARGV[4] == '1' and 'ZREVRANGE' or 'ZRANGE', key, ARGV[2], ARGV[3], 'WITHSCORES')
else
  return { 0, 0, '0', '0' }
end
local answer, first, last, count = {}, nil, nil, 0

local of_records = account ~= '' or kind ~= '' or tenant ~= '' or cause ~= '' or since > 0 or until_ > 0
local known = {} -- many deliveries share a reply

local function says(id)
  local w = redis.call('HMGET', P .. 'delivery:' .. id, 'code', 'enhanced', 'words')
  local said = (w[1] or '') .. ' ' .. (w[2] or '') .. ' ' .. (w[3] or '')
  if known[said] == nil then known[said] = string.find(string.lower(said), text, 1, true) ~= nil end
  return known[said]
end

local function fits(id)
  if of_records then
    local r = redis.call('HMGET', P .. 'delivery:' .. id, 'account', 'kind', 'tenant', 'cause', 'accepted_at')
    if account ~= '' and r[1] ~= account or kind ~= '' and r[2] ~= kind then return false end
    if tenant ~= '' and r[3] ~= tenant or cause ~= '' and r[4] ~= cause then return false end
    local at = tonumber(r[5] or 0)
    if since > 0 and at < since or until_ > 0 and at >= until_ then return false end
  end
  return text == '' or says(id)
end

local step = list and 1 or 2
for i = 1, #found, step do
  if fits(found[i]) then
    count = count + 1
    local score = list and 0 or tonumber(found[i + 1])
    first, last = math.min(first or score, score), math.max(last or score, score)
    if ARGV[12] == '1' then answer[#answer + 1] = found[i] end
  end
end
return { #found / step, count, n2s(first or 0), n2s(last or 0), unpack(answer) }
