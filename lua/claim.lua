-- Decides claims on one campaign, one after the other, and appends the accepted ones to the partition's stream as one
-- entry. Nothing is written before every claim is decided, as Redis does not roll back a script that fails half way.
--
-- KEYS[1] campaign   hash: total, claimed, sequence, limit, opens_at, closes_at (ms), state; epoch, see campaign_put.lua
-- KEYS[2] claims     hash: user id -> the user's records, concatenated
-- KEYS[3] stream     stream of accepted claims
-- ARGV[1] coupon     id of the campaign
-- ARGV[2] reply_channel   channel of the process that waits for an outcome, or ''
-- ARGV[3] issuer     'ADMINISTRATOR' for an assignment, to which the claim window and a pause do not apply; else ''
-- ARGV[*] user, claim, request   for each claim: user id, claim id (16 bytes), request id ('' = the claim's)
--
-- Returns {UNKNOWN} when Redis does not hold the campaign,
-- else {DECIDED, now (ms), remaining, opens_at (ms), decisions}: 27 bytes for each claim, a code and a record.
-- A record is 26 bytes: claim id (16), sequence (4), accepted at (6, ms), big endian.
--
-- UNKNOWN = 0          nothing was decided
-- DECIDED = 1          with a decision for each claim
-- ACCEPTED = 1         with the new record
-- REPLAYED = 2         the same claim id was accepted before; with its record
-- ALREADY_CLAIMED = 3  the user is at the limit, or has a claim and the campaign is closed or exhausted; with the user's
--                      first record. A caller whose response was lost finds its claim by claiming again, at any time
-- EXHAUSTED = 4        no quantity remains
-- NOT_OPEN = 5         before opens_at
-- CLOSED = 6           from closes_at on, or closed by an administrator
-- PAUSED = 7           paused by an administrator
local UNKNOWN, DECIDED = 0, 1
local ACCEPTED, REPLAYED, ALREADY_CLAIMED, EXHAUSTED, NOT_OPEN, CLOSED, PAUSED = 1, 2, 3, 4, 5, 6, 7
local RECORD_BYTES = 26
local NO_RECORD = string.rep('\0', RECORD_BYTES)

local campaign = redis.call('HMGET', KEYS[1],
  'total', 'claimed', 'sequence', 'limit', 'opens_at', 'closes_at', 'state')
if not campaign[1] then return {UNKNOWN} end
local total, claimed, sequence = tonumber(campaign[1]), tonumber(campaign[2]), tonumber(campaign[3])
local limit_bytes = tonumber(campaign[4]) * RECORD_BYTES
local opens_at, closes_at, state = tonumber(campaign[5]), tonumber(campaign[6]), campaign[7]

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local reject_code
if state == 'CLOSED' then reject_code = CLOSED
elseif ARGV[3] ~= 'ADMINISTRATOR' then
  if now >= closes_at then reject_code = CLOSED
  elseif now < opens_at then reject_code = NOT_OPEN
  elseif state == 'PAUSED' then reject_code = PAUSED end
end

local users = {}
for i = 4, #ARGV, 3 do users[#users + 1] = ARGV[i] end
local held = redis.call('HMGET', KEYS[2], unpack(users))

local function replayed(records, claim)
  for at = 1, #records, RECORD_BYTES do
    if string.sub(records, at, at + 15) == claim then return string.sub(records, at, at + RECORD_BYTES - 1) end
  end
end

local decisions, appended, written = {}, {}, {}
for i, user in ipairs(users) do
  local records, claim = written[user] or held[i] or '', ARGV[3 * i + 2]
  local code, record = reject_code, replayed(records, claim)
  if record then
    code = REPLAYED
  else
    if not code and claimed >= total then code = EXHAUSTED end
    if #records >= limit_bytes or (#records > 0 and (code == CLOSED or code == EXHAUSTED)) then
      code, record = ALREADY_CLAIMED, string.sub(records, 1, RECORD_BYTES)
    elseif not code then
      claimed, sequence = claimed + 1, sequence + 1
      code, record = ACCEPTED, claim .. struct.pack('>I4I6', sequence, now)
      written[user] = records .. record
      local request = ARGV[3 * i + 3]
      appended[#appended + 1] = record .. struct.pack('>I8B', tonumber(user), #request) .. request
    end
  end
  decisions[i] = string.char(code) .. (record or NO_RECORD)
end

if #appended > 0 then
  local fields = {}
  for user, records in pairs(written) do
    fields[#fields + 1] = user
    fields[#fields + 1] = records
  end
  redis.call('HSET', KEYS[2], unpack(fields))
  redis.call('HSET', KEYS[1], 'claimed', claimed, 'sequence', sequence)
  local entry = {'type', 'claims.v1', 'coupon', ARGV[1], 'answers', ARGV[2], 'claims', table.concat(appended)}
  -- The second check in MySQL needs to know whether the window and a pause apply.
  if ARGV[3] ~= '' then entry[9], entry[10] = 'issuer', ARGV[3] end
  redis.call('XADD', KEYS[3], '*', unpack(entry))
end
return {DECIDED, now, total - claimed, opens_at, table.concat(decisions)}
