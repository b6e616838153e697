-- Writes the report of one replica for a topic, and returns the reports of the others that are alive.
--
-- KEYS: the sorted set of replicas by the time of their last call, and the hash of the topic's reports.
-- The hash has two fields for each replica: "version:NAME" and "report:NAME".
-- ARGV: the name of the replica ('' only reads), the milliseconds after which a replica counts as gone,
-- the bytes after which no more reports are returned, 'store', 'remove' or 'keep', the version and the
-- report to store, and then the name and the version of each report that the caller knows.
-- Returns the stored version of the caller's report, or '', and for each other report the name of its
-- replica, its version, and its text, or '' if the caller knows the version.

local now, expiry = now_ms(), tonumber(ARGV[2])
local name, action = ARGV[1], ARGV[4]
local function text(number)
    return string.format('%.0f', number)
end
if name ~= '' then
    redis.call('ZADD', KEYS[1], text(now), name)
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. text(now - expiry))
    -- The clock of another server may have been ahead.
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '(' .. text(now + expiry), '+inf')
    redis.call('PEXPIRE', KEYS[1], text(2 * expiry))
    if action == 'store' then
        redis.call('HSET', KEYS[2], 'version:' .. name, ARGV[5], 'report:' .. name, ARGV[6])
    elseif action == 'remove' then
        redis.call('HDEL', KEYS[2], 'version:' .. name, 'report:' .. name)
    end
    -- Longer than the time between two calls for a topic when there are many topics.
    redis.call('PEXPIRE', KEYS[2], text(6 * expiry))
end
local known = {}
for at = 7, #ARGV, 2 do
    known[ARGV[at]] = ARGV[at + 1]
end
local alive = redis.call('ZRANGEBYSCORE', KEYS[1], text(now - expiry), text(now + expiry))
local others, bytes, fields, isAlive = {}, 0, 0, {}
for step = 1, #alive do
    -- Begins at another replica each time, so that a full answer does not always lack the same.
    local replica = alive[(now + step) % #alive + 1]
    isAlive[replica] = true
    local version = redis.call('HGET', KEYS[2], 'version:' .. replica)
    if version then
        fields = fields + 2
        if replica ~= name then
            local report = ''
            if known[replica] ~= version and bytes < tonumber(ARGV[3]) then
                report = redis.call('HGET', KEYS[2], 'report:' .. replica) or ''
                bytes = bytes + #report
            end
            others[#others + 1] = { replica, version, report }
        end
    end
end
-- Removes the reports of replicas that are gone.
if name ~= '' and fields < redis.call('HLEN', KEYS[2]) then
    for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
        if not isAlive[string.match(field, ':(.*)$')] then
            redis.call('HDEL', KEYS[2], field)
        end
    end
end
return { redis.call('HGET', KEYS[2], 'version:' .. name) or '', others }
