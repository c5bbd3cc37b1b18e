-- Resets the idle time of entries that a consumer works on, so that no other consumer reclaims them from a living one.
-- Entries that another consumer has reclaimed meanwhile stay with it. Delivery counts stay, too.
--
-- KEYS[1] stream
-- ARGV[1] group      consumer group
-- ARGV[2] consumer   name of the consumer
-- ARGV[*] entry      entry ids
--
-- Returns {code, refreshed}
--
-- REFRESHED = 1   that many entries were still pending at this consumer
local REFRESHED = 1

local owned = {}
for i = 3, #ARGV do
    -- A group that was lost with Redis's memory has nothing pending.
    local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])
    if pending[1] then owned[#owned + 1] = ARGV[i] end
end
if #owned == 0 then return {REFRESHED, 0} end
-- The ids come before the option; unpack must be the last argument to give all of them.
owned[#owned + 1] = 'JUSTID'
return {REFRESHED, #redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, unpack(owned))}
