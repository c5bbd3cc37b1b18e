-- Creates a campaign, or updates the terms of an existing one. Only claims change the counts of an existing campaign. A
-- campaign and its staged claims appear at once. The total may be lower than what is claimed: then no quantity remains.
--
-- KEYS[1] campaign   hash, see claim.lua
-- KEYS[2] claims     hash, see claim.lua
-- KEYS[3] staged     claims that a rebuild gathered; renamed to claims when the campaign is created, else deleted
-- ARGV[1] total        claims that may be accepted: the quantity, and a claim more for each revoked coupon
-- ARGV[2] limit        claims a user may have accepted
-- ARGV[3] opens_at     ms
-- ARGV[4] closes_at    ms
-- ARGV[5] state        ACTIVE, PAUSED or CLOSED
-- ARGV[6] claimed      accepted claims, for a new campaign; '' to update only
-- ARGV[7] sequence     highest sequence of an accepted claim, for a new campaign
-- ARGV[8] guard        'NOT_BELOW_CLAIMED': a total below what is claimed changes nothing; else ''
-- ARGV[9] epoch        of the database; a campaign of another epoch counts claims that MySQL may have lost, so it is unknown
--
-- Returns {code, now (ms), claimed}
--
-- UNKNOWN = 0         nothing changed: Redis does not hold the campaign, and no counts are given
-- CREATED = 1         with the given counts
-- UPDATED = 2         the counts stay
-- BELOW_CLAIMED = 3   nothing changed: more than the total is claimed
local UNKNOWN, CREATED, UPDATED, BELOW_CLAIMED = 0, 1, 2, 3

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HMGET', KEYS[1], 'claimed', 'epoch')
-- Versions without epochs wrote none: then it is the first.
local known = held[1] and (held[2] or '0') == ARGV[9]
local claimed = tonumber(known and held[1] or ARGV[6])
if not claimed then return {UNKNOWN, now, 0} end
if ARGV[8] ~= '' and claimed > tonumber(ARGV[1]) then return {BELOW_CLAIMED, now, claimed} end
redis.call('HSET', KEYS[1],
  'total', ARGV[1], 'limit', ARGV[2], 'opens_at', ARGV[3], 'closes_at', ARGV[4], 'state', ARGV[5])
-- UNLINK: DEL would free a million claims in the main thread, which takes 380 ms. So would RENAME onto a key that exists.
if known then
  redis.call('UNLINK', KEYS[3])
  return {UPDATED, now, claimed}
end
redis.call('HSET', KEYS[1], 'claimed', ARGV[6], 'sequence', ARGV[7], 'epoch', ARGV[9])
redis.call('UNLINK', KEYS[2])
if redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('RENAME', KEYS[3], KEYS[2])
  -- Staged keys expire; claims must not.
  redis.call('PERSIST', KEYS[2])
end
return {CREATED, now, claimed}
