-- What a tail has to know before it reads on.
--
-- KEYS: the log, its state, the stream of renewals.
-- ARGV: the server's run id, the newest id that the caller has seen, how many milliseconds back the
-- caller wants to read, the server that it has read from before or ''.
-- Returns the newest id, the one that all that the caller wants comes after, and the newest renewal's.

local newest = heal(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[4])
local oldest = string.format('%.0f', math.max(0, now_ms() - tonumber(ARGV[3])))
local renewal = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]
local before = redis.call('XREVRANGE', KEYS[1], '(' .. oldest, '-', 'COUNT', 1)[1]
return {newest, before and before[1] or trimmed(KEYS[1]), renewal and renewal[1] or '0-0'}
