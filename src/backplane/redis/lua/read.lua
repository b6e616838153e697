-- Reads the next entries, limited by their bytes. Writes nothing, so that it also works at maxmemory.
--
-- KEYS: the log, its state, the stream of renewals.
-- ARGV: the newest entry and the newest renewal that were read, the number of bytes after which the read
-- ends, and the largest number of entries.
-- Returns the entries, the renewals, the newest id of the log (or '' if the log is lost), and the newest
-- id that was trimmed.

-- Entries per XRANGE. Small, since each entry can have 10 MB.
local STEP = 4

local entries, bytes = {}, 0
local after = ARGV[1]
while bytes < tonumber(ARGV[3]) and #entries < tonumber(ARGV[4]) do
    local step = redis.call('XRANGE', KEYS[1], '(' .. after, '+', 'COUNT', STEP)
    for _, entry in ipairs(step) do
        entries[#entries + 1] = entry
        after = entry[1]
        for _, text in ipairs(entry[2]) do
            bytes = bytes + #text
        end
    end
    if #step < STEP then
        break
    end
end
local renewals = redis.call('XRANGE', KEYS[3], '(' .. ARGV[2], '+', 'COUNT', 100)
if redis.call('EXISTS', KEYS[1]) == 0 then
    return {entries, renewals, '', '0-0'}
end
return {entries, renewals, redis.call('HGET', KEYS[2], 'newest') or '', trimmed(KEYS[1])}
