-- Lets go of what is too old or too much, by the server's clock and in whole nodes of the stream. A
-- command of its own, because at maxmemory appends are refused and this is not.
--
-- KEYS: the log, its state.
-- ARGV: the oldest age in milliseconds, the most entries, the most bytes.
-- Returns how many entries went.

local newest = redis.call('HGET', KEYS[2], 'newest')
if not newest or redis.call('XLEN', KEYS[1]) == 0 then
    return 0
end
-- The newest entry stays: an empty log is one that was lost.
local oldest_kept = math.min(now_ms() - tonumber(ARGV[1]), (split(newest)))
local gone = redis.call('XTRIM', KEYS[1], 'MINID', '~', string.format('%.0f', oldest_kept))
gone = gone + redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', ARGV[2])
local bytes = redis.call('MEMORY', 'USAGE', KEYS[1]) or 0
if tonumber(ARGV[3]) < bytes then
    local entries = redis.call('XLEN', KEYS[1])
    local kept = math.max(1, math.floor(entries * tonumber(ARGV[3]) / bytes))
    gone = gone + redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', kept)
end
if 0 < gone then
    -- All that can be said afterwards is that it was before the first that is left.
    local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][1]
    local ms, sequence = split(first)
    if 0 < sequence then
        first = string.format('%.0f-%.0f', ms, sequence - 1)
    else
        first = string.format('%.0f-4294967295', ms - 1)
    end
    redis.call('HSET', KEYS[2], 'trimmed', first)
end
return gone
