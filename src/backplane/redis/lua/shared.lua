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

-- Looks whether this is still the log that everyone knows, and writes a break into it if not: when
-- another server answers than the last time (it was restarted, or another one took over, and nobody
-- can say what it has forgotten), when there is no log, or when its newest entry is older than what
-- the caller has seen of it. The break's id is above all that the caller has seen, whatever the
-- server's clock says. Returns the log's newest id.
local function heal(log, state, server, seen)
    local known = redis.call('HMGET', state, 'server', 'newest')
    local reason
    if not known[1] or not known[2] or redis.call('XLEN', log) == 0 then
        reason = 'empty'
    elseif is_older(known[2], seen) then
        reason = 'shorter'
    elseif known[1] ~= server then
        reason = 'server'
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
    redis.call('HSET', state, 'server', server, 'newest', id)
    return id
end
