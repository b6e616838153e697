-- What a tail has to know before it reads on.
--
-- KEYS: the log, its state.
-- ARGV: the server's run id, the newest id that the caller has seen, how many milliseconds back the
-- caller wants to read.
-- Returns the newest id, and the one that all that the caller wants comes after.

local newest = heal(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
local oldest = string.format('%.0f', math.max(0, now_ms() - tonumber(ARGV[3])))
local before = redis.call('XREVRANGE', KEYS[1], '(' .. oldest, '-', 'COUNT', 1)[1]
if before then
    return {newest, before[1]}
end
return {newest, redis.call('HGET', KEYS[2], 'trimmed') or '0-0'}
