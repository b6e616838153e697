-- Stores the grant of a ticket, unless its holder has too many unused tickets.
--
-- KEYS: the ticket, the sorted set of the holder's tickets by their expiry, and a mark that is set for
-- a second after this holder was refused.
-- ARGV: the grant, its lifetime in milliseconds, the largest number of unused tickets of one holder,
-- the name of this ticket and the prefix of the keys of all tickets.
-- Returns 1 if the ticket was stored, else 0.

local now, most = now_ms(), tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now))
if redis.call('ZCARD', KEYS[2]) >= most then
    -- Removes the used tickets from the set. The search costs one command for each ticket, so it
    -- runs at most once a second.
    if redis.call('EXISTS', KEYS[3]) == 1 then
        return 0
    end
    for _, name in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
        if redis.call('EXISTS', ARGV[5] .. name) == 0 then
            redis.call('ZREM', KEYS[2], name)
        end
    end
    if redis.call('ZCARD', KEYS[2]) >= most then
        redis.call('SET', KEYS[3], '1', 'PX', 1000)
        return 0
    end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('ZADD', KEYS[2], string.format('%.0f', now + tonumber(ARGV[2])), ARGV[4])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
