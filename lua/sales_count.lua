-- Counts the sales of Kafka messages. A message counts once, however often it is delivered: within a partition of a topic
-- sequences ascend at first delivery, so the highest counted sequence shows which messages are new. Messages that a rebuild
-- counted have a sequence up to 'applied', see sales_put.lua. shared/sales_changes.lua is the end of this script.
--
-- KEYS[1] applied        string, 'sequence' or 'sequence@epoch': every event up to this one is counted
-- KEYS[2] counted        hash: topic/partition -> 'sequence offset': the highest sequence counted from it, and its next offset
-- KEYS[3] building       string, see sales_build_begin.lua
-- KEYS[4] changed        set: while a build runs, the products of the changes are added
-- KEYS[*] day            for each day that the messages touch, a sorted set: units by product
-- KEYS[*] window, info   for each window, a sorted set and a hash, see shared/sales_show.lua
-- ARGV[1] days                                     number of days
-- ARGV[2] sources                                  number of partitions that the messages come from
-- ARGV[3] seen                                     the 'applied' that the consumer saw last; '' for none
-- ARGV[4] remembered                               number of partitions whose next offset the consumer remembers
-- ARGV[5] epoch                                    of the database
-- ARGV[*] expires_at, date                         for each day: expiry of its key, Unix time in seconds; as 2026-11-29
-- ARGV[*] source, first, next, sequence            for each source: its name, first offset, offset after the last, highest sequence
-- ARGV[*] source, next                             for each remembered partition: its name and next offset
-- ARGV[*] source, sequence, day, product, units    for each change: the source's and the day's number (1, 2, ..); units may be negative
--
-- Returns {code, applied}; LOST is returned alone
--
-- LOST = 0      nothing changed: earlier messages are not counted, or Redis returned to an older state, or the counts are of
--               another epoch, in which MySQL may have lost them
-- COUNTED = 1   the messages are counted
local LOST, COUNTED = 0, 1

local days, sources, seen, remembered = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local expires_at = 6
local first_source = expires_at + 2 * days
local first_memory = first_source + 4 * sources
local first_change = first_memory + 2 * remembered
local applied, epoch = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+)@?(%d*)$')
applied = tonumber(applied)
-- In an epoch 'applied' only grows, so a lower value is one of an older state.
if applied == nil or (tonumber(epoch) or 0) ~= tonumber(ARGV[5]) or seen and applied < seen then return {LOST} end

local function entry(name)
  local sequence, offset = string.match(redis.call('HGET', KEYS[2], name) or '', '^(%d+) (%d+)$')
  return tonumber(sequence), tonumber(offset)
end

-- Entries grow until a rebuild deletes them. Without a rebuild, a missing or lower entry is one of an older state.
if applied == seen then
  for i = first_memory, first_change - 1, 2 do
    local _, offset = entry(ARGV[i])
    if not offset or offset < tonumber(ARGV[i + 1]) then return {LOST} end
  end
end

local counted, entries = {}, {}
for source = 1, sources do
  local at = first_source + 4 * (source - 1)
  local name, first, following, highest = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local sequence, offset = entry(name)
  sequence, offset = sequence or 0, offset or first
  -- Redis returned to an older state, or the topic deleted messages before they were read.
  if first > offset then return {LOST} end
  counted[source] = math.max(applied, sequence)
  entries[#entries + 1] = name
  entries[#entries + 1] = string.format('%.0f %.0f', math.max(sequence, highest), math.max(offset, following))
end
local changes = {}
for i = first_change, #ARGV, 5 do
  if tonumber(ARGV[i + 1]) > counted[tonumber(ARGV[i])] then
    changes[#changes + 1] = {tonumber(ARGV[i + 2]), ARGV[i + 3], tonumber(ARGV[i + 4])}
  end
end

local function finish()
  for i = 1, #entries, 2 do redis.call('HSET', KEYS[2], entries[i], entries[i + 1]) end
  return {COUNTED, string.format('%.0f', applied)}
end

