-- Appends a message to the log, unless the log has it. Redis does not roll back the writes of a failed
-- script, so the order matters: the deduplication key is written last, and only for an entry of the log.
--
-- KEYS: the log, its state, and the deduplication key if the message has an id.
-- ARGV: the server's run id, the newest id that the caller has seen, the lifetime of the deduplication
-- key in milliseconds, and the fields and values of the entry.
-- Returns 'stored' or 'duplicate', and the id of the entry.

local newest = mark_break_if_changed(KEYS[1], KEYS[2], ARGV[1], ARGV[2], '')
if KEYS[3] then
    local id = redis.call('GET', KEYS[3])
    if id then
        -- This write fails on a server that is no longer the master, which must not confirm.
        redis.call('HSET', KEYS[2], 'newest', newest)
        return {'duplicate', id}
    end
end
local id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 4))
redis.call('HSET', KEYS[2], 'newest', id)
if KEYS[3] then
    -- The entry is stored already, so an error here must not fail the script: pcall ignores it.
    redis.pcall('SET', KEYS[3], id, 'PX', ARGV[3])
end
return {'stored', id}
