-- Removes the entries that exceed a limit of the log: oldest first, in one bounded step. Separate from
-- appends: at maxmemory Redis refuses appends, but not this script, which only deletes.
--
-- KEYS: the log, its state.
-- ARGV: the largest age in milliseconds by the server's clock, the largest number of entries, and the
-- largest number of bytes, or '' to skip that check (which takes time in proportion to the log).
-- Returns the number of removed entries, and 1 if there may be more to remove, else 0.

-- Entries and bytes after which a step ends.
local ENTRIES, BYTES = 1000, 16777216

local newest = redis.call('HGET', KEYS[2], 'newest')
local length = redis.call('XLEN', KEYS[1])
if not newest or length == 0 then
    return {0, 0}
end
local oldest_kept = now_ms() - tonumber(ARGV[1])
local excess = 0
if ARGV[3] ~= '' then
    excess = redis.call('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', 0) - tonumber(ARGV[3])
end
local removed, bytes = 0, 0
while removed < ENTRIES and bytes < BYTES do
    local ids = {}
    local step = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', STEP)
    for _, entry in ipairs(step) do
        local is_too_old = split(entry[1]) < oldest_kept
        local is_too_much = tonumber(ARGV[2]) < length - removed - #ids or bytes < excess
        -- The newest entry is never removed, since an empty log counts as lost.
        if not (is_too_old or is_too_much) or not is_older(entry[1], newest) then
            break
        end
        ids[#ids + 1] = entry[1]
        for _, text in ipairs(entry[2]) do
            bytes = bytes + #text
        end
    end
    if #ids == 0 then
        return {removed, 0}
    end
    -- XDEL instead of XTRIM, since only XDEL records the newest removed id in the stream.
    redis.call('XDEL', KEYS[1], unpack(ids))
    removed = removed + #ids
end
return {removed, 1}
