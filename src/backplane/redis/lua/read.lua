-- Reads the next entries, limited by their bytes. Writes nothing, so that it also works at maxmemory.
--
-- KEYS: the log, its state, the stream of renewals.
-- ARGV: the newest entry and the newest renewal that were read, the number of bytes after which the read
-- ends, and the largest number of entries.
-- Returns the packed entries, the packed renewals, the newest id of the log (or '' if the log is lost),
-- and the newest id that was trimmed.

local entries = entries_after(KEYS[1], ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4]))
local renewals = pack(redis.call('XRANGE', KEYS[3], '(' .. ARGV[2], '+', 'COUNT', 100))
if redis.call('EXISTS', KEYS[1]) == 0 then
    return {pack(entries), renewals, '', '0-0'}
end
local newest = redis.call('HGET', KEYS[2], 'newest') or ''
return {pack(entries), renewals, newest, trimmed(KEYS[1])}
