-- Adds days up to a window, sorted for reading: the product that sold best first, of two that sold the same the one of
-- the lower id. So units are negative here, and members are ids of equal length.
--
-- KEYS[1] applied   string, see sales_apply.lua
-- KEYS[2] window    sorted set: units by product, negative
-- KEYS[3] made      hash: to (the window's last day), at (ms, when it was made)
-- KEYS[*] day       sorted sets, see sales_apply.lua
-- ARGV[1] to        the window's last day
-- ARGV[2] at        ms, now
-- ARGV[3] kept      seconds, after which Redis may forget the window
--
-- Returns {code, products}
--
-- LOST = 0   nothing was changed: Redis does not know what it has counted
-- MADE = 1   the window holds so many products
local LOST, MADE = 0, 1

if redis.call('EXISTS', KEYS[1]) == 0 then return {LOST, 0} end
local command = {'ZUNIONSTORE', KEYS[2], #KEYS - 3}
for i = 4, #KEYS do command[#command + 1] = KEYS[i] end
command[#command + 1] = 'WEIGHTS'
for _ = 4, #KEYS do command[#command + 1] = -1 end
local products = redis.call(unpack(command))
redis.call('HSET', KEYS[3], 'to', ARGV[1], 'at', ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[3])
redis.call('EXPIRE', KEYS[3], ARGV[3])
return {MADE, products}
