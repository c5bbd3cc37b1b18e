-- The common end of sales_apply.lua and sales_count.lua: adds changes to the days that they touch, and to the windows that
-- contain these days. The Rust caller appends this text to both, as a Redis script cannot call another one. It reads these
-- locals of the text before it:
--
-- changes      {number of the day (1, 2, ..), product, units} for each change
-- days         number of days; their sorted sets are KEYS[5], KEYS[6], .., and for each window two keys follow: its sorted
--              set, see shared/sales_show.lua, and its info
-- expires_at   index in ARGV of the first day's expiry; its date and the others follow
-- finish       function that stores the position of the source and returns the reply

-- Redis does not roll back a script that fails half way, so everything is checked before the first write.
local building, changed = redis.call('EXISTS', KEYS[3]) == 1, KEYS[4]
local first_window, windows = 5 + days, {}
local sets = {}
for day = 1, days do sets[day] = KEYS[4 + day] end
for i = first_window, #KEYS, 2 do
  local fields = redis.call('HMGET', KEYS[i + 1], 'from', 'to', 'at', 'counted_at', 'expires_at')
  local from, to, at, counted_at, expires = unpack(fields)
  -- A window that is missing, or that an older version built, counts nothing until the next build.
  if from and at == counted_at then
    windows[#windows + 1] = {
      key = KEYS[i], info = KEYS[i + 1], from = from, to = to, at = tonumber(at), expires = expires, sold = {}
    }
    sets[#sets + 1] = KEYS[i]
  end
end
for _, key in ipairs(sets) do
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'zset' and kind ~= 'none' then return redis.error_reply('a day or window of sales is a ' .. kind) end
end
if building then
  local kind = redis.call('TYPE', changed).ok
  if kind ~= 'set' and kind ~= 'none' then return redis.error_reply('the changed products are a ' .. kind) end
end

local function add(scores, product, units) scores[product] = (scores[product] or 0) + units end

local function increment(key, scores)
  for product, units in pairs(scores) do
    -- A member with the score 0 would show a product that sold nothing.
    if units ~= 0 and tonumber(redis.call('ZINCRBY', key, units, product)) == 0 then redis.call('ZREM', key, product) end
  end
end

-- Added up first: a batch has many sales of few products.
local sold, touched = {}, {}
for day = 1, days do sold[day] = {} end
for _, change in ipairs(changes) do add(sold[change[1]], change[2], change[3]) end
for day = 1, days do
  local date = ARGV[expires_at + 2 * day - 1]
  increment(KEYS[4 + day], sold[day])
  redis.call('EXPIREAT', KEYS[4 + day], ARGV[expires_at + 2 * day - 2])
  for product, units in pairs(sold[day]) do
    if building then touched[#touched + 1] = product end
    for _, window in ipairs(windows) do
      if window.from <= date and date <= window.to then add(window.sold, product, -units) end
    end
  end
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, window in ipairs(windows) do
  if next(window.sold) then
    increment(window.key, window.sold)
    -- A reader compares 'at' to see whether it has to read the window again, so each change makes it greater.
    local at = string.format('%.0f', math.max(now, window.at + 1))
    redis.call('HSET', window.info, 'at', at, 'counted_at', at)
    -- An empty window has no key, and this may be its first member.
    redis.call('EXPIREAT', window.key, window.expires)
  end
end
-- In pages, as the arguments of a call in Lua have a limit.
for i = 1, #touched, 1000 do redis.call('SADD', changed, unpack(touched, i, math.min(i + 999, #touched))) end
-- It outlives the build, which would miss what is forgotten.
if #touched > 0 then redis.call('PEXPIRE', changed, redis.call('PTTL', KEYS[3]) + 60000) end
return finish()
