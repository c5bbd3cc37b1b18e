-- Begins a build of the windows. From now on the products whose sales change are noted, as the build reads the days in pages
-- and may have read them before. A build that began earlier is superseded.
--
-- KEYS[1] applied    string, see sales_apply.lua
-- KEYS[2] building   string: id of the newest build, while it runs
-- KEYS[3] changed    set: products whose sales changed since it began
-- ARGV[1] build         id of this build
-- ARGV[2] ttl_seconds   after which Redis forgets the build
--
-- Returns {code}
--
-- LOST = 0    nothing changed: Redis does not know which events are counted
-- BEGUN = 1
local LOST, BEGUN = 0, 1

if redis.call('EXISTS', KEYS[1]) == 0 then return {LOST} end
redis.call('SET', KEYS[2], ARGV[1], 'EX', ARGV[2])
redis.call('UNLINK', KEYS[3])
return {BEGUN}
