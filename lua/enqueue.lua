-- Appends entries to a stream, unless so many wait on it that another would only wait.
--
-- KEYS[1] stream
-- ARGV[1] longest       entries that may wait
-- ARGV[*] strings, name, value   for each entry: the number of strings of its fields, then these
--
-- Returns {appended}: how many entries, the first ones, are on the stream
local room = tonumber(ARGV[1]) - redis.call('XLEN', KEYS[1])
local at, appended = 2, 0
while at <= #ARGV and appended < room do
  local last = at + tonumber(ARGV[at])
  redis.call('XADD', KEYS[1], '*', unpack(ARGV, at + 1, last))
  at, appended = last + 1, appended + 1
end
return {appended}
