-- Counts the sales of consecutive events of the outbox. An event counts once, however often it is applied: its sequence
-- shows whether it was counted before. shared/sales_changes.lua is the end of this script.
--
-- KEYS[1] applied        string, 'sequence' or 'sequence@epoch': every event up to this one is counted
-- KEYS[2] counted        hash, see sales_count.lua: while it exists, later events are counted from Kafka
-- KEYS[3] building       string, see sales_build_begin.lua
-- KEYS[4] changed        set: while a build runs, the products of the changes are added
-- KEYS[*] day            for each day that the batch touches, a sorted set: units by product
-- KEYS[*] window, info   for each window, a sorted set and a hash, see shared/sales_show.lua
-- ARGV[1] first                            sequence of the first event
-- ARGV[2] last                             sequence of the last event; less than first when the batch is empty
-- ARGV[3] days                             number of days
-- ARGV[4] epoch                            of the database
-- ARGV[*] expires_at, date                 for each day: expiry of its key, Unix time in seconds; as 2026-11-29
-- ARGV[*] sequence, day, product, units    for each change: the day's number (1, 2, ..); units may be negative
--
-- Returns {code, applied}
--
-- GAP = 0       nothing changed: events before the batch are not counted, or some are counted from Kafka, or in another
--               epoch, in which MySQL may have lost them
-- APPLIED = 1   every event up to the returned sequence is counted
local GAP, APPLIED = 0, 1

local first, last, days = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local applied, epoch = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+)@?(%d*)$')
applied = tonumber(applied)
if applied == nil or (tonumber(epoch) or 0) ~= tonumber(ARGV[4]) or first > applied + 1 or redis.call('EXISTS', KEYS[2]) == 1 then return {GAP, applied or 0} end

local expires_at, changes = 5, {}
for i = expires_at + 2 * days, #ARGV, 4 do
  if tonumber(ARGV[i]) > applied then
    changes[#changes + 1] = {tonumber(ARGV[i + 1]), ARGV[i + 2], tonumber(ARGV[i + 3])}
  end
end

local function finish()
  -- A repeated batch must not move the position back.
  if last <= applied then return {APPLIED, applied} end
  redis.call('SET', KEYS[1], ARGV[4] == '0' and ARGV[2] or ARGV[2] .. '@' .. ARGV[4])
  return {APPLIED, last}
end

