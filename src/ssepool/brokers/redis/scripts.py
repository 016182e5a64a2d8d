"""The scripts that Redis runs, in Lua. Each reads and writes the keys of one history in one step.

The id of an entry in the stream is `<position>-<epoch as a number>`, so a reader sees to which history it belongs.
"""

from __future__ import annotations

BEGIN = """
local state_key, log, claims, places = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local new_epoch, seen_epoch, seen = ARGV[1], ARGV[2], tonumber(ARGV[3])
local most_events, most_bytes, grace = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local spare_events, spare_bytes, overhead = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local state = redis.call('HMGET', state_key, 'epoch', 'newest', 'oldest', 'events', 'bytes')
local epoch, newest, oldest, events, bytes = state[1], tonumber(state[2]), tonumber(state[3]), tonumber(state[4]),
    tonumber(state[5])
local changed, lost = false, 0

local function text(number)
    return string.format('%.0f', number)
end

if events and redis.call('XLEN', log) > events then -- somebody else has written to the stream
    local suffix = '-' .. text(tonumber(epoch, 16))
    local page = redis.call('XRANGE', log, text(newest + 1), '+', 'COUNT', 64)
    while #page > 0 do
        for _, entry in ipairs(page) do
            if entry[1] == text(newest + 1) .. suffix then -- readers have taken it for the next one
                newest, events, bytes, changed = newest + 1, events + 1, bytes + #entry[2][2] + overhead, true
            else
                redis.call('XDEL', log, entry[1])
            end
        end
        page = redis.call('XRANGE', log, text(newest + 1), '+', 'COUNT', 64)
    end
    redis.call('XSETID', log, text(newest) .. suffix) -- else it would take no entry of ours any more
end

if redis.call('XLEN', log) ~= (events or -1) then -- no history yet, or somebody has deleted a key of it
    redis.call('HLEN', claims) -- fails for a key of another type, which we must not delete
    redis.call('ZCARD', places)
    redis.call('UNLINK', log, claims, places)
    epoch, newest, oldest, events, bytes, changed = new_epoch, 0, 0, 0, 0, true
elseif epoch == seen_epoch and newest < seen then -- a crash took the newest entries: never use their positions again
    lost, newest, changed = seen - newest, seen, true
end

local function member(id, position) -- of the set of places: in the order of the positions for each id
    return id .. ' ' .. string.format('%016.0f', position) .. ' '
end

local function claim(id, topics, content, position)
    redis.call('HSET', claims, id .. ' ' .. topics, text(position) .. ' ' .. content)
    redis.call('ZADD', places, 0, member(id, position) .. topics)
end

local function disclaim(id, position)
    local start = member(id, position)
    local found = redis.call('ZRANGEBYLEX', places, '[' .. start, '+', 'LIMIT', 0, 1)[1]
    if found and string.sub(found, 1, #start) == start then
        redis.call('HDEL', claims, id .. ' ' .. string.sub(found, #start + 1))
        redis.call('ZREM', places, found)
    end
end

local function drop(most, age)
    local page_size, last = 1, nil
    while most > 0 and events > 0 and (events > most_events or bytes > most_bytes or age) do
        local page = redis.call('XRANGE', log, last and '(' .. last or '-', '+', 'COUNT', math.min(page_size, most))
        for _, entry in ipairs(page) do
            local record, at, id = entry[2][2], tonumber(entry[2][4]) or 0, entry[2][6]
            local due = events > most_events or bytes > most_bytes or (age and now - at >= age)
            local spared = now - at < grace and events <= most_events + spare_events
                and bytes <= most_bytes + spare_bytes
            if not due or spared then
                most = 0
                break
            end
            if id then
                disclaim(id, tonumber(string.match(entry[1], '%d+')))
            end
            last, most = entry[1], most - 1
            events, bytes = events - 1, bytes - #record - overhead
        end
        page_size = math.min(2 * page_size, 64)
    end
    if last then
        oldest = tonumber(string.match(last, '%d+'))
        redis.call('XTRIM', log, 'MINID', string.format('%.0f', oldest + 1))
        changed = true
    end
end

local function save()
    if changed then
        redis.call('HSET', state_key, 'epoch', epoch, 'newest', text(newest), 'oldest', text(oldest),
            'events', text(events), 'bytes', text(bytes))
    end
end
"""
"""The beginning of `APPEND`, `LOOK`, `FIND` and `CLAIM`: reads the state, drops what others have added to the stream,
begins a history if there is none, and defines `save`, `claim` for the chosen id of an entry, and `drop` for the
entries beyond the bounds.

The hash `claims` has, for each chosen id with the digest of its topics, the position and the digest of the content. The
sorted set `places` has a member for each of them, with id, position and digest of the topics, in this order, so that
all events of an id are found in order, and the claim of an entry that is dropped."""

APPEND = """
local mode, most, first = ARGV[10], tonumber(ARGV[11]), 12
local kept, is_refused, after = {}, mode == 'look', newest
for at = first, #ARGV, 4 do -- look at all ids before anything is written
    local id, topics, content = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    local known = id ~= '' and redis.call('HGET', claims, id .. ' ' .. topics)
    kept[#kept + 1] = known or ''
    is_refused = is_refused or (known and (mode == 'refuse' or string.match(known, ' (.*)') ~= content))
end
if not is_refused then
    local suffix = '-' .. text(tonumber(epoch, 16))
    for at = first, #ARGV, 4 do
        if kept[(at - first) / 4 + 1] == '' then
            local id, record = ARGV[at], ARGV[at + 3]
            newest, events, bytes, changed = newest + 1, events + 1, bytes + #record + overhead, true
            if id == '' then
                redis.call('XADD', log, text(newest) .. suffix, 'record', record, 'time', now)
            else
                redis.call('XADD', log, text(newest) .. suffix, 'record', record, 'time', now, 'id', id)
                claim(id, ARGV[at + 1], ARGV[at + 2], newest)
            end
        end
    end
end
drop(2 * #kept + most, nil)
save()
return {epoch, lost, after, kept}
"""
"""Appends the events in the arguments, all or nothing: id, digest of the topics, digest of the content, record; no two
have the same id and topics. It stores nothing if the history has one with other content, in the mode `refuse` if it has
one at all, in the mode `look` in any case. Returns the position before them, and what the history has had of each."""

LOOK = """
local before = events
drop(tonumber(ARGV[11]), tonumber(ARGV[10]))
save()
return {epoch, oldest, newest, bytes, lost, before - events}
"""
"""Drops entries that are too old. Returns what the history has, and how many entries it dropped."""

FIND = """
drop(tonumber(ARGV[11]), tonumber(ARGV[10]))
save()
local id, after, most, left, made = ARGV[12], tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15]), ARGV[16]
local found = {}
local members = redis.call('ZRANGEBYLEX', places, '[' .. member(id, after + 1), '(' .. id .. '!', 'LIMIT', 0, most)
for _, one in ipairs(members) do
    if left <= 0 then
        break
    end
    local position = tonumber(string.sub(one, #id + 2, #id + 17))
    local entry = redis.call('XRANGE', log, text(position), text(position), 'COUNT', 1)[1]
    local record = entry and entry[2][2] or ''
    found[#found + 1] = position
    found[#found + 1] = record
    left = left - #record
end
if made ~= '' and #redis.call('XRANGE', log, made, made) == 0 then
    made = ''
end
return {found, made}
"""
"""Returns the positions and records of the next events of a chosen id behind a position, up to a number of events
and of bytes, and the id of an entry if it is there."""

CLAIM = """
local old = KEYS[5]
for at = 10, #ARGV, 4 do
    local id, position = ARGV[at], tonumber(ARGV[at + 3])
    if position > oldest and redis.call('HGET', old, id) == ARGV[at + 3] then
        claim(id, ARGV[at + 1], ARGV[at + 2], position)
    end
    redis.call('HDEL', old, id)
end
save()
return redis.call('HLEN', old)
"""
"""Takes events of the layout before, which had a hash with the position of each chosen id, into `claims` and `places`:
id, digest of the topics, digest of the content, position. Returns how many are left in the hash."""

PAGE = """
local start, most, left = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local page = {}
while most > 0 and left > 0 do
    local step = math.min(most, 16)
    local entries = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', step)
    for _, entry in ipairs(entries) do
        if left <= 0 then
            break
        end
        page[#page + 1] = entry[1]
        page[#page + 1] = entry[2][2]
        left = left - #entry[2][2]
    end
    if #entries < step then
        break
    end
    start, most = '(' .. entries[#entries][1], most - step
end
return page
"""
"""Returns the entries from an id on, up to a number of entries and of bytes. It runs without `BEGIN`."""

FACTS = """
local facts, ends, order = KEYS[1], KEYS[2], KEYS[3]
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = micros / 1000
for _, name in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', string.format('%.0f', now), 'LIMIT', 0, 1000)) do
    redis.call('HDEL', facts, name)
    redis.call('ZREM', ends, name)
    redis.call('ZREM', order, name)
end
"""
"""The beginning of `KEEP` and `KEPT`: drops the facts whose time is over, 1,000 at a time.

The hash `facts` has what each says, and two sorted sets have the names: `fact-ends` by the time until which each is
kept, in milliseconds, and `fact-order` by their numbers."""

KEEP = """
local name, data, millis, most = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if redis.call('HEXISTS', facts, name) == 0 and redis.call('HLEN', facts) >= most then
    return 0
end
local newest = tonumber(redis.call('ZREVRANGE', order, 0, 0, 'WITHSCORES')[2]) or 0
redis.call('HSET', facts, name, data)
redis.call('ZADD', ends, string.format('%.0f', now + millis), name)
redis.call('ZADD', order, string.format('%.0f', math.max(newest + 1, micros)), name)
return 1
"""
"""Keeps a fact for some milliseconds. Returns 0, and does nothing, if there are as many others as there may be. Its
number is also behind those of facts that are gone, for it is made of the time."""

KEPT = """
local found = {}
local page = redis.call('ZRANGEBYSCORE', order, '(' .. ARGV[1], '+inf', 'WITHSCORES', 'LIMIT', 0, tonumber(ARGV[2]))
for at = 1, #page, 2 do
    local till, data = tonumber(redis.call('ZSCORE', ends, page[at])), redis.call('HGET', facts, page[at])
    found[#found + 1] = page[at]
    found[#found + 1] = string.format('%.0f', tonumber(page[at + 1]))
    found[#found + 1] = (till and till > now and data) or ''
end
return found
"""
"""Returns the names, numbers and contents of the next facts behind a number; the content is empty for one whose time is
over."""
