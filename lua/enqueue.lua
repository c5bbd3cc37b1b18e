-- Appends an entry to a stream, unless so many wait on it that it would only wait.
--
-- KEYS[1] stream
-- ARGV[1] longest       entries that may wait
-- ARGV[*] name, value   fields of the entry
--
-- Returns {code}
--
-- FULL = 0       nothing was appended
-- APPENDED = 1   the entry is on the stream
local FULL, APPENDED = 0, 1

if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[1]) then return {FULL} end
redis.call('XADD', KEYS[1], '*', unpack(ARGV, 2))
return {APPENDED}
