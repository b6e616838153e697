-- Appends messages to the log in their order, each unless the log has it. One message that fails does not
-- fail the others. Redis does not roll back the writes of a failed script, so the order matters: a
-- deduplication key is written only for an entry of the log. Also reads the entries before the messages
-- that the caller has not read, so that it need not read the messages back.
--
-- KEYS: the log, its state, and the deduplication keys of the messages that have an id.
-- ARGV: the server's run id, the newest id that the caller has read, the lifetime of a deduplication key
-- in milliseconds, the number of bytes and the number of entries after which the read ends (0 to read
-- nothing), and the messages. These are one string, which the caller encodes much faster than many: for
-- each message the position of its deduplication key in KEYS, or 0 if it has none, and the values of its
-- fields, each after its length. A number has 4 bytes.
-- Before this text, scripts.rs defines FORMAT, the format of the entries, and FIELDS, the names of their
-- other fields.
-- Returns one string, which the caller decodes much faster than a list. Its first line has the newest id
-- that was trimmed (0-0 if no entry that the caller has not read can have been), and 'all' if the entries
-- below are all that the caller had not read, else 'more'. Then a line for each message: the id of its
-- entry, 'duplicate: ' and the id of the entry that the log has, or 'error: ' and the reason. Then the
-- packed entries before the messages.

local newest = mark_break_if_changed(KEYS[1], KEYS[2], ARGV[1], ARGV[2], '')
local bytes_max, entries_max, messages = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]

local before, is_all, removed = {}, newest == ARGV[2], '0-0'
if not is_all and 0 < entries_max then
    before, is_all = entries_after(KEYS[1], ARGV[2], bytes_max, entries_max)
    removed = trimmed(KEYS[1])
end

local entry = {'format', FORMAT}
for field, name in ipairs(FIELDS) do
    entry[2 * field + 1] = name
end

local function error_line(reply)
    return 'error: ' .. string.gsub(reply.err, '%c', ' ')
end

-- `message` has the position of its key, and the values of its fields.
local function append(message)
    local dedup_key = KEYS[message[1]]
    local known = dedup_key and redis.pcall('GET', dedup_key)
    if type(known) == 'table' then
        return error_line(known)
    elseif known then
        return 'duplicate: ' .. known
    end
    for field = 1, #FIELDS do
        entry[2 * field + 2] = message[1 + field]
    end
    local id = redis.pcall('XADD', KEYS[1], '*', unpack(entry))
    if type(id) == 'table' then
        return error_line(id)
    end
    newest = id
    if dedup_key then
        -- The entry is stored already, so an error here must not fail it: pcall ignores it.
        redis.pcall('SET', dedup_key, id, 'PX', ARGV[3])
    end
    return id
end

local lines = {removed .. (is_all and ' all' or ' more')}
-- `c0` is a text with the length before it. The position behind the message comes last.
local layout, at = '>I4' .. string.rep('I4c0', #FIELDS), 1
while at <= #messages do
    local message = {struct.unpack(layout, messages, at)}
    lines[#lines + 1] = append(message)
    at = message[2 + #FIELDS]
end
-- This write fails on a server that is no longer the master, which must not confirm duplicates either.
redis.call('HSET', KEYS[2], 'newest', newest)
lines[#lines + 1] = pack(before)
return table.concat(lines, '\n')
