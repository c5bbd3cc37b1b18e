-- Replaces a window, the ranking of some days, by a staged one. Units are negative in a window, and members are ids of equal
-- length: the product that sold most comes first, and of two that sold the same the one with the lower id.
--
-- KEYS[1] applied   string, see sales_apply.lua
-- KEYS[2] window    sorted set: units by product, negative
-- KEYS[3] staged    the staged window; without it the window is empty
-- KEYS[4] info      hash: to (last day of the window), at (ms, when it was created)
-- ARGV[1] to                  last day of the window
-- ARGV[2] at                  ms, now
-- ARGV[3] retention_seconds   after which Redis deletes the window
--
-- Returns {code}
--
-- LOST = 0    nothing changed: Redis does not know which events are counted
-- SHOWN = 1   the window is replaced
local LOST, SHOWN = 0, 1

if redis.call('EXISTS', KEYS[1]) == 0 then return {LOST} end
-- UNLINK before RENAME: RENAME alone would free a million members in the main thread.
redis.call('UNLINK', KEYS[2])
if redis.call('EXISTS', KEYS[3]) == 1 then redis.call('RENAME', KEYS[3], KEYS[2]) end
redis.call('HSET', KEYS[4], 'to', ARGV[1], 'at', ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[3])
redis.call('EXPIRE', KEYS[4], ARGV[3])
return {SHOWN}
