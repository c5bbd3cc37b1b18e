-- The common end of sales_build_step.lua and sales_put.lua: replaces windows, the rankings of some days, by staged ones, all
-- at once. Units are negative in a window, and members are ids of equal length: the product that sold most comes first, and
-- of two that sold the same the one with the lower id. The Rust caller appends this text to both. It reads these locals of
-- the text before it:
--
-- first_window   index in KEYS of the first window; its staged window, without which it is empty, its info, and the others
--                follow
-- first_span     index in ARGV of the first window's first day; its last day and the others follow
-- retention      seconds after which Redis deletes the windows
-- building, changed   keys of the build, which ends
-- reply

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = first_window, #KEYS, 3 do
  local window, staged, info = KEYS[i], KEYS[i + 1], KEYS[i + 2]
  local span = first_span + (i - first_window) / 3 * 2
  -- UNLINK before RENAME: RENAME alone would free a million members in the main thread.
  redis.call('UNLINK', window)
  if redis.call('EXISTS', staged) == 1 then redis.call('RENAME', staged, window) end
  -- Greater than before, see sales_changes.lua. An older version, which counts nothing into windows, writes 'at' alone.
  local before = tonumber(redis.call('HGET', info, 'at') or 0)
  local at = string.format('%.0f', math.max(now, before + 1))
  -- A minute after its info: a window that expired alone would be filled again with a part of its sales.
  local expires = string.format('%.0f', time[1] + retention + 60)
  redis.call('HSET', info, 'from', ARGV[span], 'to', ARGV[span + 1], 'at', at, 'counted_at', at, 'expires_at', expires)
  redis.call('EXPIRE', info, retention)
  redis.call('EXPIREAT', window, expires)
end
redis.call('UNLINK', building, changed)
return reply
