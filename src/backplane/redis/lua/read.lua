-- Reads the next entries, limited by their bytes. Writes nothing, so that it also works at maxmemory.
--
-- KEYS: the log, its state, the stream of renewals.
-- ARGV: the newest entry and the newest renewal that were read, the number of bytes after which the read
-- ends, and the largest number of entries.
-- Returns the packed entries, the packed renewals, the newest id of the log (or '' if the log is lost),
-- and the newest id that was trimmed.

-- Entries per XRANGE. Small, since each entry can have 10 MB.
local STEP = 4

-- Packs entries into one string, since the caller takes much longer to decode lists of lists: for each
-- entry its id, the number of its names and values, and these. A number has 4 bytes, and the bytes of a
-- text come after their number.
local function pack(entries)
    local parts = {}
    local function add(text)
        parts[#parts + 1] = struct.pack('>I4', #text)
        parts[#parts + 1] = text
    end
    for _, entry in ipairs(entries) do
        add(entry[1])
        parts[#parts + 1] = struct.pack('>I4', #entry[2])
        for _, text in ipairs(entry[2]) do
            add(text)
        end
    end
    return table.concat(parts)
end

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
local renewals = pack(redis.call('XRANGE', KEYS[3], '(' .. ARGV[2], '+', 'COUNT', 100))
if redis.call('EXISTS', KEYS[1]) == 0 then
    return {pack(entries), renewals, '', '0-0'}
end
local newest = redis.call('HGET', KEYS[2], 'newest') or ''
return {pack(entries), renewals, newest, trimmed(KEYS[1])}
