-- Takes entries off a stream once their outcome is durable: acknowledged and deleted in one step, so that no
-- entry stays behind that no consumer reads again.
--
-- KEYS[1] stream
-- ARGV[1] group      consumer group
-- ARGV[*] entry      entry ids
--
-- Returns {code, removed}
--
-- ACKNOWLEDGED = 1   that many entries were deleted; the others were gone before
local ACKNOWLEDGED = 1

local entries = {}
for i = 2, #ARGV do entries[#entries + 1] = ARGV[i] end
-- A group that was lost with Redis's memory has nothing pending.
redis.pcall('XACK', KEYS[1], ARGV[1], unpack(entries))
return {ACKNOWLEDGED, redis.call('XDEL', KEYS[1], unpack(entries))}
