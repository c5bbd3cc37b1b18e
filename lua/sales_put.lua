-- Replaces days by rebuilt ones, all at once, with the sequence up to which events are contained in them. A rebuild deletes
-- 'applied' before it reads the orders, so that no other process counts meanwhile.
--
-- KEYS[1] applied       string, see sales_apply.lua
-- KEYS[2] counted       hash, see sales_count.lua; deleted, as the rebuilt days contain no message of Kafka beyond 'applied'
-- KEYS[*] day, staged   for each day: the key to replace, and the staged key; without a staged key the day has no sales
-- ARGV[1] position     'sequence' or 'sequence@epoch': every event up to this one is contained in the staged days
-- ARGV[*] expires_at   for each day: expiry of its key, Unix time in seconds
--
-- Returns {code}
--
-- LATE = 0   nothing changed: another rebuild was faster, and its days are counted on
-- PUT = 1
local LATE, PUT = 0, 1

if redis.call('EXISTS', KEYS[1]) == 1 then return {LATE} end

for i = 3, #KEYS, 2 do
  local day, staged = KEYS[i], KEYS[i + 1]
  -- UNLINK before RENAME: RENAME alone would free a million members in the main thread.
  redis.call('UNLINK', day)
  if redis.call('EXISTS', staged) == 1 then
    redis.call('RENAME', staged, day)
    redis.call('EXPIREAT', day, ARGV[(i + 1) / 2])
  end
end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('UNLINK', KEYS[2])
return {PUT}
