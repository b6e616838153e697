-- What the scripts have in common. Ids are "<ms>-<sequence>"; both fit into a number of Lua.

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

-- Looks whether this is still the log that the caller knows, and writes a break into it if not: when
-- there is no log, when its newest entry is older than what the caller has seen, when another server
-- answers than the last time anyone asked (it was restarted, or another one took over, and nobody can
-- say what it has forgotten), and when another one answers than the caller has read from so far, unless
-- the break that tells of it is still to be read by the caller. The break's id is above all that the
-- caller has seen, whatever the server's clock says. `before` is the server that the caller has read
-- from, or ''. Returns the log's newest id.
local function heal(log, state, server, seen, before)
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
        -- Refused if the log was above it already.
        id = type(added) == 'string' and added
    end
    id = id or redis.call('XADD', log, '*', 'format', '1', 'break', reason)
    redis.call('HSET', state, 'server', server, 'newest', id, 'broke', id)
    return id
end

-- The newest id that is gone from the beginning of the log.
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
    -- One that somebody took out of the middle says nothing of the beginning.
    if deleted and is_older(deleted, first) then
        return deleted
    end
    -- As before Redis 7: all that can be said is that it was before the first.
    local ms, sequence = split(first)
    if 0 < sequence then
        return string.format('%.0f-%.0f', ms, sequence - 1)
    end
    return string.format('%.0f-4294967295', math.max(0, ms - 1))
end
