-- Counts the sales that messages of Kafka tell of, each message once, however often it comes. In a partition of a topic
-- messages come for the first time in ascending sequence, so the highest sequence that was counted from it tells which
-- are new. What a rebuild counted is known by 'applied', see sales_put.lua.
--
-- KEYS[1] applied   string: every event up to this sequence is counted
-- KEYS[2] counted   hash: topic/partition -> 'sequence offset': the highest sequence counted from it since, and the offset that comes next
-- KEYS[*] day       sorted set for each day that the messages touch: units by product
-- ARGV[1] days                                     how many days they touch
-- ARGV[2] sources                                  of how many partitions of topics they are
-- ARGV[*] expires_at                               for each day: when Redis may forget it, seconds
-- ARGV[*] source, first, next, sequence            for each: its name, the offset of its first message and the one after its last, their highest sequence
-- ARGV[*] source, sequence, day, product, units    for each change: which of the sources and of the days (1, 2, ..), and units, which may be negative
--
-- Returns {code}
--
-- LOST = 0      nothing was changed: Redis has not counted what came before these messages
-- COUNTED = 1   they are counted
local LOST, COUNTED = 0, 1

local days, sources = tonumber(ARGV[1]), tonumber(ARGV[2])
local applied = tonumber(redis.call('GET', KEYS[1]) or nil)
if applied == nil then return {LOST} end

-- What is checked here cannot fail half way below.
local counted, write = {}, {}
for source = 1, sources do
  local at = 3 + days + 4 * (source - 1)
  local name, first, following, highest = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local sequence, offset = string.match(redis.call('HGET', KEYS[2], name) or '', '^(%d+) (%d+)$')
  sequence, offset = tonumber(sequence or 0), tonumber(offset or first)
  -- Redis came back with older data, or the topic has dropped messages before they were read.
  if first > offset then return {LOST} end
  counted[source] = math.max(applied, sequence)
  write[#write + 1] = name
  write[#write + 1] = string.format('%.0f %.0f', math.max(sequence, highest), math.max(offset, following))
end
local changes = {}
for i = 3 + days + 4 * sources, #ARGV, 5 do
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
for day = 1, days do redis.call('EXPIREAT', KEYS[2 + day], ARGV[2 + day]) end
for i = 1, #write, 2 do redis.call('HSET', KEYS[2], write[i], write[i + 1]) end
return {COUNTED}
