-- Returns the slots of claims that were refused after their acceptance. A slot returns once: the claim's
-- record is removed with it.
--
-- KEYS[1] campaign   hash, see claim.lua
-- KEYS[2] claims     hash, see claim.lua
-- ARGV[*] user, claim   for each claim: user id, claim id (16 bytes)
--
-- Returns {code, returned}
--
-- UNKNOWN = 0    Redis does not hold the campaign: ask again when it does, so that a rebuild does not count the slot
-- RETURNED = 1   that many slots returned; claims without a record have none to give
local UNKNOWN, RETURNED = 0, 1
local RECORD_BYTES = 26

if redis.call('EXISTS', KEYS[1]) == 0 then return {UNKNOWN, 0} end
local returned = 0
for i = 1, #ARGV, 2 do
  local user, claim = ARGV[i], ARGV[i + 1]
  local records, kept = redis.call('HGET', KEYS[2], user) or '', {}
  for at = 1, #records, RECORD_BYTES do
    local record = string.sub(records, at, at + RECORD_BYTES - 1)
    if string.sub(record, 1, 16) ~= claim then kept[#kept + 1] = record end
  end
  local remaining = table.concat(kept)
  if #remaining < #records then
    returned = returned + (#records - #remaining) / RECORD_BYTES
    if #remaining == 0 then
      redis.call('HDEL', KEYS[2], user)
    else
      redis.call('HSET', KEYS[2], user, remaining)
    end
  end
end
if returned > 0 then redis.call('HINCRBY', KEYS[1], 'claimed', -returned) end
return {RETURNED, returned}
