-- The common end of sales_apply.lua and sales_count.lua: adds changes to the days that they touch. The Rust caller
-- appends this text to both, as a Redis script cannot call another one. It reads these locals of the text before it:
--
-- changes      {key of the day, product, units} for each change
-- days         number of days; their sorted sets are KEYS[3], KEYS[4], ..
-- expires_at   index in ARGV of the first day's expiry, the others follow
-- finish       function that stores the position of the source and returns the reply

-- Redis does not roll back a script that fails half way, so everything is checked before the first write.
for day = 1, days do
  local kind = redis.call('TYPE', KEYS[2 + day]).ok
  if kind ~= 'zset' and kind ~= 'none' then return redis.error_reply('a day of sales is a ' .. kind) end
end
for _, change in ipairs(changes) do
  local key, product, units = change[1], change[2], change[3]
  -- A member with the score 0 would show a product that sold nothing.
  if tonumber(redis.call('ZINCRBY', key, units, product)) == 0 then redis.call('ZREM', key, product) end
end
for day = 1, days do redis.call('EXPIREAT', KEYS[2 + day], ARGV[expires_at + day - 1]) end
return finish()
