-- Keeps what a ticket stands for, unless its holder has too many that nobody has used.
--
-- KEYS: the ticket, the sorted set of its holder's tickets by when they expire, and what is there for
-- a second after this holder was refused.
-- ARGV: what the ticket stands for, for how many milliseconds, how many one holder may have, the name
-- of this ticket and what all names of tickets begin with.
-- Returns 1 if it was kept.

local now, most = now_ms(), tonumber(ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now))
if redis.call('ZCARD', KEYS[2]) >= most then
    -- A look at each of them, to see which were used. At most once a second.
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
