-- Moves an entry that failed again and again to the dead-letter stream, with the reason, in one step.
--
-- KEYS[1] stream
-- KEYS[2] dead       dead-letter stream of the same partition
-- ARGV[1] group      consumer group
-- ARGV[2] entry      entry id
-- ARGV[3] reason     what the last attempt said
-- ARGV[4] attempts   how many there were
--
-- Returns {code}
--
-- GONE = 0    the entry is no longer on the stream: somebody finished it
-- MOVED = 1   its fields, and entry, reason and attempts, are on the dead-letter stream
local GONE, MOVED = 0, 1

local found = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])
if #found == 0 then
  redis.pcall('XACK', KEYS[1], ARGV[1], ARGV[2])
  return {GONE}
end
local fields = found[1][2]
for _, value in ipairs({'entry', ARGV[2], 'reason', ARGV[3], 'attempts', ARGV[4]}) do
  fields[#fields + 1] = value
end
redis.call('XADD', KEYS[2], '*', unpack(fields))
redis.pcall('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
return {MOVED}
