-- Remembers how far MySQL is. What is remembered only grows: a lower position comes from a process that was slow.
--
-- KEYS[1] position   string: 'sequence' or 'sequence@epoch'
-- ARGV[1] epoch      Unix time in seconds, 0 for the first
-- ARGV[2] sequence   the highest sequence of an event
-- ARGV[3] position   the two as KEYS[1] has them
--
-- Returns {code}
--
-- KEPT = 0         a position that is not lower was there
-- REMEMBERED = 1
local KEPT, REMEMBERED = 0, 1

local sequence, epoch = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+)@?(%d*)$')
if sequence then
  local ahead = tonumber(ARGV[1]) - (tonumber(epoch) or 0)
  if ahead == 0 then ahead = tonumber(ARGV[2]) - tonumber(sequence) end
  if ahead <= 0 then return {KEPT} end
end
redis.call('SET', KEYS[1], ARGV[3])
return {REMEMBERED}
