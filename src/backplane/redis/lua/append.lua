-- Appends a message to the log unless it is there. Lua does not roll back, so the order matters:
-- the claim is written last, and never for what is not in the log.
--
-- KEYS: the log, its state, and the claim of the message's id if it has one.
-- ARGV: the server's run id, the newest id that the caller has seen, for how many milliseconds the
-- claim holds, and the entry's fields and values.

local newest = heal(KEYS[1], KEYS[2], ARGV[1], ARGV[2], '')
if KEYS[3] then
    local id = redis.call('GET', KEYS[3])
    if id then
        -- A write, so that a server that is no longer the master does not confirm.
        redis.call('HSET', KEYS[2], 'newest', newest)
        return {'duplicate', id}
    end
end
local id = redis.call('XADD', KEYS[1], '*', unpack(ARGV, 4))
redis.call('HSET', KEYS[2], 'newest', id)
if KEYS[3] then
    -- If this failed, the event would be there all the same, so it must not fail the call.
    redis.pcall('SET', KEYS[3], id, 'PX', ARGV[3])
end
return {'stored', id}
