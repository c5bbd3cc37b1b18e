-- Counts the sales that a batch of events tells of, each event once, however often it comes: what was counted before
-- is known by its sequence. The batch is all that happened from its first to its last sequence.
--
-- KEYS[1] applied   string: every event up to this sequence is counted
-- KEYS[2] counted   hash, see sales_count.lua: while it is there, events beyond the former are counted from Kafka
-- KEYS[*] day       sorted set for each day that the batch touches: units by product
-- ARGV[1] first                            sequence of the batch's first event
-- ARGV[2] last                             sequence of its last event; less than first when there is none
-- ARGV[3] days                             how many days it touches
-- ARGV[*] expires_at                       for each day: when Redis may forget it, seconds
-- ARGV[*] sequence, day, product, units    for each change: which of the days (1, 2, ..), and units, which may be negative
--
-- Returns {code, applied}
--
-- GAP = 0       nothing was changed: Redis has not counted what happened before the batch, or some of it from Kafka
-- APPLIED = 1   everything up to the sequence of the answer is counted
local GAP, APPLIED = 0, 1

local first, last, days = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local applied = tonumber(redis.call('GET', KEYS[1]) or nil)
if applied == nil or first > applied + 1 or redis.call('EXISTS', KEYS[2]) == 1 then return {GAP, applied or 0} end

-- What is checked here cannot fail half way below.
local changes, begin = {}, 4 + days
for i = begin, #ARGV, 4 do
  if tonumber(ARGV[i]) > applied then
    local key = KEYS[2 + tonumber(ARGV[i + 1])]
    changes[#changes + 1] = {key, ARGV[i + 2], tonumber(ARGV[i + 3])}
  end
end
for day = 1, days do
  local kind = redis.call('TYPE', KEYS[2 + day]).ok
  if kind ~= 'zset' and kind ~= 'none' then return redis.error_reply('a day of sales is a ' .. kind) end
end
if last <= applied then return {APPLIED, applied} end

for _, change in ipairs(changes) do
  local key, product, units = change[1], change[2], change[3]
  if tonumber(redis.call('ZINCRBY', key, units, product)) == 0 then redis.call('ZREM', key, product) end
end
for day = 1, days do redis.call('EXPIREAT', KEYS[2 + day], ARGV[3 + day]) end
redis.call('SET', KEYS[1], ARGV[2])
return {APPLIED, last}
