-- Appends messages to the log in their order, each unless the log has it. One message that fails does not
-- fail the others. Redis does not roll back the writes of a failed script, so the order matters: a
-- deduplication key is written only for an entry of the log.
--
-- KEYS: the log, its state, and the deduplication keys of the messages that have an id.
-- ARGV: the server's run id, the newest id that the caller has seen, the lifetime of a deduplication key
-- in milliseconds, and the number of fields and values of an entry. Then for each message the position of
-- its deduplication key in KEYS, or 0 if it has none, and the fields and values of its entry.
-- Returns for each message the id of its entry, 'duplicate', or 'error: ' and the reason.

local newest = mark_break_if_changed(KEYS[1], KEYS[2], ARGV[1], ARGV[2], '')
local entry_size = tonumber(ARGV[4])

local function append(dedup_key, first)
    local known = dedup_key and redis.pcall('GET', dedup_key)
    if type(known) == 'table' then
        return 'error: ' .. known.err
    elseif known then
        return 'duplicate'
    end
    local id = redis.pcall('XADD', KEYS[1], '*', unpack(ARGV, first, first + entry_size - 1))
    if type(id) == 'table' then
        return 'error: ' .. id.err
    end
    newest = id
    if dedup_key then
        -- The entry is stored already, so an error here must not fail it: pcall ignores it.
        redis.pcall('SET', dedup_key, id, 'PX', ARGV[3])
    end
    return id
end

local answers = {}
for at = 5, #ARGV, 1 + entry_size do
    answers[#answers + 1] = append(KEYS[tonumber(ARGV[at])], at + 1)
end
-- This write fails on a server that is no longer the master, which must not confirm duplicates either.
redis.call('HSET', KEYS[2], 'newest', newest)
return answers
