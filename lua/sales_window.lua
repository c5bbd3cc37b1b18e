-- Shows a window of days that was added up: puts what is staged in the place of what Redis shows. Units are negative in
-- a window, and members are ids of equal length, so that the product that sold best comes first, and of two that sold
-- the same the one of the lower id.
--
-- KEYS[1] applied   string, see sales_apply.lua
-- KEYS[2] window    sorted set: units by product, negative
-- KEYS[3] staged    what is put there; nothing staged leaves nothing
-- KEYS[4] made      hash: to (the window's last day), at (ms, when it was made)
-- ARGV[1] to        the window's last day
-- ARGV[2] at        ms, now
-- ARGV[3] kept      seconds, after which Redis may forget the window
--
-- Returns {code}
--
-- LOST = 0    nothing was changed: Redis does not know what it has counted
-- SHOWN = 1   the window is there
local LOST, SHOWN = 0, 1

if redis.call('EXISTS', KEYS[1]) == 0 then return {LOST} end
-- Unlinked, not replaced: a million members are freed beside what Redis serves.
redis.call('UNLINK', KEYS[2])
if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('RENAME', KEYS[3], KEYS[2]) end
redis.call('HSET', KEYS[4], 'to', ARGV[1], 'at', ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[3])
redis.call('EXPIRE', KEYS[4], ARGV[3])
return {SHOWN}
