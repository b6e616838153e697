-- Lets go of what is too old or too much, oldest first and a bounded step at a time. A command of its
-- own, because at maxmemory appends are refused and this, which writes nothing, is not.
--
-- KEYS: the log, its state.
-- ARGV: the oldest age in milliseconds by the server's clock, the most entries, and the most bytes, or ''
-- for not to look (the look takes time in proportion to the log).
-- Returns how many entries went, and whether there may be more.

local ENTRIES, BYTES, STEP = 1000, 16777216, 4

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
local gone, bytes = 0, 0
while gone < ENTRIES and bytes < BYTES do
    local ids = {}
    local step = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', STEP)
    for _, entry in ipairs(step) do
        local is_too_old = split(entry[1]) < oldest_kept
        local is_too_much = tonumber(ARGV[2]) < length - gone - #ids or bytes < excess
        -- The newest entry stays: an empty log is one that was lost.
        if not (is_too_old or is_too_much) or not is_older(entry[1], newest) then
            break
        end
        ids[#ids + 1] = entry[1]
        for _, text in ipairs(entry[2]) do
            bytes = bytes + #text
        end
    end
    if #ids == 0 then
        return {gone, 0}
    end
    -- Not XTRIM: this one notes in the stream which was the newest that went.
    redis.call('XDEL', KEYS[1], unpack(ids))
    gone = gone + #ids
end
return {gone, 1}
