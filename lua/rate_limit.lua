-- Counts requests against the limits of their keys, each by the generic cell rate algorithm: a key holds the time at which
-- the requests so far would have come one after the other at the allowed rate. A request that one of its keys refuses
-- counts against none.
--
-- KEYS[*] limited   string: that time (microseconds); for each request as many keys as there are limits
-- ARGV[*] interval, window   of each limit: microseconds for one request, and for as many as may come at once
--
-- Returns {DECIDED, decisions}: for each key 9 bytes, a code, the requests that remain (4) and the milliseconds until one
-- more is allowed, or for ALLOWED until none counts any more (4), big endian.
--
-- DECIDED = 1
-- ALLOWED = 1   as far as this key is concerned
-- REFUSED = 2
local DECIDED, ALLOWED, REFUSED = 1, 1, 2

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local limits = #ARGV / 2
local held = redis.call('MGET', unpack(KEYS))

local written, decisions = {}, {}
for first = 1, #KEYS, limits do
  local arrivals, is_allowed = {}, true
  for i = 1, limits do
    local key = KEYS[first + i - 1]
    local arrival = math.max(written[key] or tonumber(held[first + i - 1] or 0), now)
    local next_arrival = arrival + tonumber(ARGV[2 * i - 1])
    arrivals[i] = {key, arrival, next_arrival}
    if next_arrival - now > tonumber(ARGV[2 * i]) then is_allowed = false end
  end
  for i = 1, limits do
    local key, arrival, next_arrival = unpack(arrivals[i])
    local interval, window = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    local code, wait = ALLOWED, 0
    if next_arrival - now > window then
      code, wait = REFUSED, next_arrival - window - now
    else
      if is_allowed then
        arrival = next_arrival
        written[key] = arrival
      end
      wait = arrival - now
    end
    local remaining = math.max(math.floor((window - (arrival - now)) / interval), 0)
    decisions[#decisions + 1] = string.char(code) .. struct.pack('>I4I4', remaining, math.ceil(wait / 1000))
  end
end

for key, arrival in pairs(written) do
  redis.call('SET', key, string.format('%.0f', arrival), 'PX', math.ceil((arrival - now) / 1000))
end
return {DECIDED, table.concat(decisions)}
