-- Returns the position from which a tail reads.
--
-- KEYS: the log, its state, the stream of renewals.
-- ARGV: the server's run id, the newest id that the caller has seen, the age of the oldest entry that the
-- caller needs in milliseconds, and the run id of the server that the caller read from before, or ''.
-- Returns the newest id of the log, the id just before the first entry that the caller needs, and the id
-- of the newest renewal.

local newest = mark_break_if_changed(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[4])
local oldest = string.format('%.0f', math.max(0, now_ms() - tonumber(ARGV[3])))
local renewal = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]
local before = redis.call('XREVRANGE', KEYS[1], '(' .. oldest, '-', 'COUNT', 1)[1]
return {newest, before and before[1] or trimmed(KEYS[1]), renewal and renewal[1] or '0-0'}
