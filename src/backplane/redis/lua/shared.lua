-- Functions that all scripts share. Ids are "<ms>-<sequence>"; both numbers fit into a number of Lua.

local function split(id)
    local ms, sequence = string.match(id, '^(%d+)%-(%d+)$')
    return tonumber(ms), tonumber(sequence)
end

local function is_older(a, b)
    local a_ms, a_sequence = split(a)
    local b_ms, b_sequence = split(b)
    return a_ms < b_ms or (a_ms == b_ms and a_sequence < b_sequence)
end

local function now_ms()
    local time = redis.call('TIME')
    return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Appends a break, an entry that marks that the log may have lost entries before it, when this may not be
-- the log that the caller knows. The reasons are:
-- empty:   there is no log.
-- shorter: the newest entry is older than the newest entry that the caller has seen.
-- server:  the server is another one than at the last call. It was restarted, or another server took
--          over, and either can have lost entries.
-- moved:   the server is another one than the caller has read from (`before`, or ''), and the log has no
--          break after `seen` that the caller will still read.
-- The id of the break is greater than `seen`, the newest id that the caller has seen, even if the clock
-- of the server is behind. Returns the newest id of the log.
local function mark_break_if_changed(log, state, server, seen, before)
    local known = redis.call('HMGET', state, 'server', 'newest', 'broke')
    local reason
    if not known[1] or not known[2] or redis.call('XLEN', log) == 0 then
        reason = 'empty'
    elseif is_older(known[2], seen) then
        reason = 'shorter'
    elseif known[1] ~= server then
        reason = 'server'
    elseif before ~= '' and before ~= server and not (known[3] and is_older(seen, known[3])) then
        reason = 'moved'
    else
        return known[2]
    end
    local ms, sequence = split(seen)
    local id
    if now_ms() <= ms then
        local above = string.format('%.0f-%.0f', ms, sequence + 1)
        local added = redis.pcall('XADD', log, above, 'format', '1', 'break', reason)
        -- Redis refuses the id if the log has a greater one already.
        id = type(added) == 'string' and added
    end
    id = id or redis.call('XADD', log, '*', 'format', '1', 'break', reason)
    redis.call('HSET', state, 'server', server, 'newest', id, 'broke', id)
    return id
end

-- Returns the newest id that was removed from the beginning of the log.
local function trimmed(log)
    local deleted, first
    local info = redis.call('XINFO', 'STREAM', log)
    for at = 1, #info, 2 do
        if info[at] == 'max-deleted-entry-id' then
            deleted = info[at + 1]
        elseif info[at] == 'first-entry' and info[at + 1] then
            first = info[at + 1][1]
        end
    end
    if not first then
        return deleted or '0-0'
    end
    -- An entry that was deleted by hand from the middle says nothing about the beginning.
    if deleted and is_older(deleted, first) then
        return deleted
    end
    -- Before Redis 7 the id is unknown. Returns the id just before the first entry.
    local ms, sequence = split(first)
    if 0 < sequence then
        return string.format('%.0f-%.0f', ms, sequence - 1)
    end
    return string.format('%.0f-4294967295', math.max(0, ms - 1))
end

-- Entries per XRANGE. Small, since each entry can have 10 MB.
local STEP = 4

-- Reads entries after an id, until they have `bytes_max` bytes, or there are `entries_max`; the last step
-- can exceed both. Returns the entries, and true if the log has no more.
local function entries_after(log, after, bytes_max, entries_max)
    local entries, bytes = {}, 0
    while bytes < bytes_max and #entries < entries_max do
        local step = redis.call('XRANGE', log, '(' .. after, '+', 'COUNT', STEP)
        for _, entry in ipairs(step) do
            entries[#entries + 1] = entry
            after = entry[1]
            for _, text in ipairs(entry[2]) do
                bytes = bytes + #text
            end
        end
        if #step < STEP then
            return entries, true
        end
    end
    return entries, false
end

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
