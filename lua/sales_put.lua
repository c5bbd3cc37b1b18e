-- Replaces days by rebuilt ones, and the windows by those of the rebuilt days, all at once, with the sequence up to which
-- events are contained in them. A rebuild deletes 'applied' before it reads the orders, so that no other process counts
-- meanwhile. shared/sales_show.lua is the end of this script.
--
-- KEYS[1] applied                string, see sales_apply.lua
-- KEYS[2] counted                hash, see sales_count.lua; deleted: the rebuilt days contain no message beyond 'applied'
-- KEYS[3] building               string, see sales_build_begin.lua; deleted: a build that runs has read the days before
-- KEYS[4] changed                set, see sales_build_begin.lua
-- KEYS[*] day, staged            for each day: the key to replace, and the staged key; without a staged key the day has no sales
-- KEYS[*] window, staged, info   for each window, see shared/sales_show.lua
-- ARGV[1] position            'sequence' or 'sequence@epoch': every event up to this one is contained in the staged days
-- ARGV[2] days                number of days
-- ARGV[3] retention_seconds   after which Redis deletes the windows
-- ARGV[*] expires_at          for each day: expiry of its key, Unix time in seconds
-- ARGV[*] from, to            for each window: its first and its last day
--
-- Returns {code}
--
-- LATE = 0   nothing changed: another rebuild was faster, and its days are counted on
-- PUT = 1
local LATE, PUT = 0, 1

if redis.call('EXISTS', KEYS[1]) == 1 then return {LATE} end

local days, retention = tonumber(ARGV[2]), tonumber(ARGV[3])
for i = 1, days do
  local day, staged = KEYS[3 + 2 * i], KEYS[4 + 2 * i]
  -- UNLINK before RENAME: RENAME alone would free a million members in the main thread.
  redis.call('UNLINK', day)
  if redis.call('EXISTS', staged) == 1 then
    redis.call('RENAME', staged, day)
    redis.call('EXPIREAT', day, ARGV[3 + i])
  end
end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('UNLINK', KEYS[2])
local building, changed = KEYS[3], KEYS[4]
local first_window, first_span, reply = 5 + 2 * days, 4 + days, {PUT}

