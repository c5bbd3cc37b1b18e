-- Removes the consumers of a group that have nothing pending and were not active for long: their processes were killed. In
-- one step, as an entry that a consumer reads in between would be lost with it.
--
-- KEYS[1] stream
-- ARGV[1] group      consumer group
-- ARGV[2] min_idle   ms since the consumer last read
-- ARGV[3] limit      consumers that one call removes
--
-- Returns {code, removed}
--
-- REMOVED = 1   that many consumers
local REMOVED = 1

-- A group that was lost with Redis's memory has no consumers.
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if consumers.err then return {REMOVED, 0} end

local removed = 0
for _, fields in ipairs(consumers) do
  local consumer = {}
  for i = 1, #fields, 2 do consumer[fields[i]] = fields[i + 1] end
  if removed == tonumber(ARGV[3]) then break end
  if consumer.pending == 0 and consumer.idle >= tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer.name)
    removed = removed + 1
  end
end
return {REMOVED, removed}
