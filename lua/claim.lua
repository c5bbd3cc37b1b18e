-- Decides claims on one campaign, one after the other, and appends the accepted ones to the partition's stream as one
-- entry. Nothing is written before every claim is decided, as Redis does not roll back a script that fails half way.
--
-- KEYS[1] campaign   hash: total, claimed, sequence, limit, opens_at, closes_at (ms), state; epoch, see campaign_put.lua
-- KEYS[2] claims     hash: user id -> the user's records, concatenated
-- KEYS[3] stream     stream of accepted claims
-- ARGV[1] coupon     id of the campaign
-- ARGV[2] reply_channel   channel of the process that waits for an outcome, or ''
-- ARGV[3] issuer     'ADMINISTRATOR' for an assignment, to which the claim window and a pause do not apply; else ''
-- ARGV[4] claims     claim ids, 16 bytes each
-- ARGV[5] senders    for each claim: user id (8 bytes, big endian), length of the request id (1), that id ('' = the claim's)
-- ARGV[6] traces     for claims of sampled requests: claim id (16 bytes), trace id (16), span id (8); else ''
-- ARGV[*] user       for each claim: user id
--
-- Returns {UNKNOWN} when Redis does not hold the campaign,
-- else {DECIDED, now (ms), remaining, opens_at (ms), sequence, codes, records}: a byte of codes for each claim; the last
-- sequence, of the last accepted claim; and a record for each REPLAYED and ALREADY_CLAIMED. The record of an ACCEPTED claim
-- follows from the others, as most claims are accepted until the campaign is exhausted.
-- A record is 26 bytes: claim id (16), sequence (4), accepted at (6, ms), big endian.
--
-- UNKNOWN = 0          nothing was decided
-- DECIDED = 1          with a decision for each claim
-- ACCEPTED = 1         with the next sequence, accepted now
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
-- Locals are faster than fields of global tables, and this is the one script that runs a hundred thousand times a second.
local sub, byte, char, pack, argv = string.sub, string.byte, string.char, struct.pack, ARGV

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
elseif argv[3] ~= 'ADMINISTRATOR' then
  if now >= closes_at then reject_code = CLOSED
  elseif now < opens_at then reject_code = NOT_OPEN
  elseif state == 'PAUSED' then reject_code = PAUSED end
end

-- What a claim gets that is not accepted: a code, and a record of the user.
local function rejected(records, claim, code)
  for at = 1, #records, RECORD_BYTES do
    if sub(records, at, at + 15) == claim then return REPLAYED, sub(records, at, at + RECORD_BYTES - 1) end
  end
  if #records >= limit_bytes or (#records > 0 and (code == CLOSED or code == EXHAUSTED)) then
    return ALREADY_CLAIMED, sub(records, 1, RECORD_BYTES)
  end
  return code
end

local users = #argv - 6
local held = redis.call('HMGET', KEYS[2], unpack(argv, 7))
local claims, senders, sender_at = argv[4], argv[5], 1
-- `written` has the records of users who occur twice in the call.
local codes, records_out, appended, fields, written = {}, {}, {}, {}, {}
local accepted = 0
for i = 1, users do
  local user, claim = argv[6 + i], sub(claims, 16 * i - 15, 16 * i)
  local sender_end = sender_at + 8 + byte(senders, sender_at + 8)
  local records, code, record = written[user] or held[i], reject_code
  if not code and claimed >= total then code = EXHAUSTED end
  if records then
    code, record = rejected(records, claim, code)
    records_out[#records_out + 1] = record
  end
  if not code then
    accepted, claimed, sequence = accepted + 1, claimed + 1, sequence + 1
    code, record = ACCEPTED, claim .. pack('>I4I6', sequence, now)
    appended[2 * accepted - 1], appended[2 * accepted] = record, sub(senders, sender_at, sender_end)
    records = records and records .. record or record
    written[user] = records
    -- Of a field that is given twice, the later value counts: the longer one.
    fields[2 * accepted - 1], fields[2 * accepted] = user, records
  end
  codes[i] = code
  sender_at = sender_end + 1
end

if accepted > 0 then
  redis.call('HSET', KEYS[2], unpack(fields))
  redis.call('HSET', KEYS[1], 'claimed', claimed, 'sequence', sequence)
  local entry = {'type', 'claims.v1', 'coupon', argv[1], 'answers', argv[2], 'claims', table.concat(appended)}
  -- The second check in MySQL needs to know whether the window and a pause apply.
  if argv[3] ~= '' then entry[9], entry[10] = 'issuer', argv[3] end
  if argv[6] ~= '' then entry[#entry + 1], entry[#entry + 2] = 'traces', argv[6] end
  redis.call('XADD', KEYS[3], '*', unpack(entry))
end
return {DECIDED, now, total - claimed, opens_at, sequence, char(unpack(codes)), table.concat(records_out)}
