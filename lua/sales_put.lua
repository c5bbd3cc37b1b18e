-- Puts days that were made anew in the place of what Redis holds, all at once, with how far events are counted in
-- them. Whoever makes days anew lets Redis forget 'applied' first, so nobody counts meanwhile.
--
-- KEYS[1] applied       string, see sales_apply.lua
-- KEYS[2] counted       hash, see sales_count.lua: nothing is counted from Kafka yet beyond what is staged
-- KEYS[*] day, staged   for each day: what is replaced, and what is put there; nothing staged leaves nothing
-- ARGV[1] sequence     up to which events are counted in what is staged
-- ARGV[*] expires_at   for each day: when Redis may forget it, seconds
--
-- Returns {code}
--
-- LATE = 0   nothing was changed: another has put days in place meanwhile, and they are counted on
-- PUT = 1
local LATE, PUT = 0, 1

if redis.call('EXISTS', KEYS[1]) == 1 then return {LATE} end

for i = 3, #KEYS, 2 do
  local day, staged = KEYS[i], KEYS[i + 1]
  -- Unlinked, not replaced: a million members are freed beside what Redis serves.
  redis.call('UNLINK', day)
  if redis.call('EXISTS', staged) == 1 then
    redis.call('RENAME', staged, day)
    redis.call('EXPIREAT', day, ARGV[(i + 1) / 2])
  end
end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return {PUT}
