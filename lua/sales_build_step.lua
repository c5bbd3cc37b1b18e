-- Brings staged windows up to date with products whose sales changed since the build began, and shows the windows once there
-- are no more of these. shared/sales_show.lua is the end of this script.
--
-- KEYS[1] applied    string, see sales_apply.lua
-- KEYS[2] building   string, see sales_build_begin.lua
-- KEYS[3] changed    set, see sales_build_begin.lua
-- KEYS[*] day                    for each day of the longest window, the latest first: units by product
-- KEYS[*] window, staged, info   for each window, see shared/sales_show.lua
-- ARGV[1] build               id of this build
-- ARGV[2] limit               of products in this step
-- ARGV[3] days                number of days
-- ARGV[4] retention_seconds   after which Redis deletes the windows
-- ARGV[5] staged_seconds      after which Redis deletes the staged windows
-- ARGV[*] from, to            for each window: its first and its last day, which is the latest
-- ARGV[*] length              for each window: its number of days
--
-- Returns {code}
--
-- LOST = 0         nothing changed: Redis does not know which events are counted
-- SHOWN = 1        the windows are replaced, and the build has ended
-- MORE = 2         products are left for another step
-- SUPERSEDED = 3   nothing changed: a newer build or a rebuild began since, or this one took too long
local LOST, SHOWN, MORE, SUPERSEDED = 0, 1, 2, 3

if redis.call('EXISTS', KEYS[1]) == 0 then return {LOST} end
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return {SUPERSEDED} end

local building, changed = KEYS[2], KEYS[3]
local days, retention, staged_seconds = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local first_window, first_span = 4 + days, 6
local windows = (#KEYS - first_window + 1) / 3
local first_length = first_span + 2 * windows

local function stage(staged, products, sold)
  local present, absent = {}, {}
  for i, product in ipairs(products) do
    if sold[i] == 0 then absent[#absent + 1] = product
    else
      present[#present + 1] = -sold[i]
      present[#present + 1] = product
    end
  end
  if #present > 0 then redis.call('ZADD', staged, unpack(present)) end
  if #absent > 0 then redis.call('ZREM', staged, unpack(absent)) end
  redis.call('EXPIRE', staged, staged_seconds)
end

local products = redis.call('SPOP', changed, ARGV[2])
if #products > 0 then
  local sold = {}
  for i = 1, #products do sold[i] = 0 end
  for day = 1, days do
    local scores = redis.call('ZMSCORE', KEYS[3 + day], unpack(products))
    for i = 1, #products do sold[i] = sold[i] + (tonumber(scores[i] or 0)) end
    for window = 1, windows do
      if tonumber(ARGV[first_length + window - 1]) == day then stage(KEYS[first_window + 3 * window - 2], products, sold) end
    end
  end
end
if redis.call('EXISTS', changed) == 1 then return {MORE} end
local reply = {SHOWN}

