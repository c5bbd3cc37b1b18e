-- Counts the sales that messages of Kafka tell of, each message once, however often it comes. In a partition of a topic
-- messages come for the first time in ascending sequence, so the highest sequence that was counted from it tells which
-- are new. What a rebuild counted is known by 'applied', see sales_put.lua.
--
-- KEYS[1] applied   string: every event up to this sequence is counted
-- KEYS[2] counted   hash: topic/partition -> 'sequence offset': the highest sequence counted from it since, and the offset that comes next
-- KEYS[*] day       sorted set for each day that the messages touch: units by product
-- ARGV[1] days                                     how many days they touch
-- ARGV[2] sources                                  of how many partitions of topics they are
-- ARGV[3] seen                                     the 'applied' that whoever counts saw last, '' when none
-- ARGV[4] remembered                               of how many partitions whoever counts remembers what it counted
-- ARGV[*] expires_at                               for each day: when Redis may forget it, seconds
-- ARGV[*] source, first, next, sequence            for each: its name, the offset of its first message and the one after its last, their highest sequence
-- ARGV[*] source, next                             for each that is remembered: its name, and the offset that came next
-- ARGV[*] source, sequence, day, product, units    for each change: which of the sources and of the days (1, 2, ..), and units, which may be negative
--
-- Returns {code, applied}, where LOST has no more than its code
--
-- LOST = 0      nothing was changed: Redis has not counted what came before these messages, or what is remembered
-- COUNTED = 1   they are counted
local LOST, COUNTED = 0, 1

local days, sources, seen, remembered = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local told = 5 + days
local memories = told + 4 * sources
local changed = memories + 2 * remembered
local applied = tonumber(redis.call('GET', KEYS[1]) or nil)
-- It never falls, unless Redis came back with older data.
if applied == nil or seen and applied < seen then return {LOST} end

local function entry(name)
  local sequence, offset = string.match(redis.call('HGET', KEYS[2], name) or '', '^(%d+) (%d+)$')
  return tonumber(sequence), tonumber(offset)
end

-- Entries only grow, and go when the days are made anew. As long as they were not, one that is gone or less than it was
-- says that Redis came back with older data.
if applied == seen then
  for i = memories, changed - 1, 2 do
    local _, offset = entry(ARGV[i])
    if not offset or offset < tonumber(ARGV[i + 1]) then return {LOST} end
  end
end

-- What is checked here cannot fail half way below.
local counted, write = {}, {}
for source = 1, sources do
  local at = told + 4 * (source - 1)
  local name, first, following, highest = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local sequence, offset = entry(name)
  sequence, offset = sequence or 0, offset or first
  -- Redis came back with older data, or the topic has dropped messages before they were read.
  if first > offset then return {LOST} end
  counted[source] = math.max(applied, sequence)
  write[#write + 1] = name
  write[#write + 1] = string.format('%.0f %.0f', math.max(sequence, highest), math.max(offset, following))
end
local changes = {}
for i = changed, #ARGV, 5 do
  if tonumber(ARGV[i + 1]) > counted[tonumber(ARGV[i])] then
    changes[#changes + 1] = {KEYS[2 + tonumber(ARGV[i + 2])], ARGV[i + 3], tonumber(ARGV[i + 4])}
  end
end
for day = 1, days do
  local kind = redis.call('TYPE', KEYS[2 + day]).ok
  if kind ~= 'zset' and kind ~= 'none' then return redis.error_reply('a day of sales is a ' .. kind) end
end

for _, change in ipairs(changes) do
  local key, product, units = change[1], change[2], change[3]
  if tonumber(redis.call('ZINCRBY', key, units, product)) == 0 then redis.call('ZREM', key, product) end
end
for day = 1, days do redis.call('EXPIREAT', KEYS[2 + day], ARGV[4 + day]) end
for i = 1, #write, 2 do redis.call('HSET', KEYS[2], write[i], write[i + 1]) end
return {COUNTED, string.format('%.0f', applied)}
