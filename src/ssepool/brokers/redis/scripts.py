"""The scripts that Redis runs, in Lua. Each reads and writes the keys of one history in one step.

The id of an entry in the stream is `<position>-<epoch as a number>`, with the epoch of the timeline in which it was
stored: so it keeps the id that it was given. The state has the epoch of now and, one after the other, those before,
each as `<epoch>-<end>`.
"""

from __future__ import annotations

VERSION = 2
"""The version of the layout: the first without one had no cuts and timelines. It is taken over by each script."""

BEGIN = """
local state_key, log, claims, places, cuts, cut_names, cut_order = unpack(KEYS)
local new_epoch, overhead, most_timelines = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local state = redis.call('HMGET', state_key, 'epoch', 'newest', 'oldest', 'events', 'bytes', 'floor', 'timelines',
    'version')
if (tonumber(state[8]) or 0) > VERSION then
    return redis.error_reply('the history has the layout ' .. state[8] .. ' of a newer ssepool, and this one knows '
        .. 'VERSION: update it, or choose another ?name=')
end
local epoch, newest, oldest, events, bytes, floor, timelines = state[1], tonumber(state[2]), tonumber(state[3]),
    tonumber(state[4]), tonumber(state[5]), tonumber(state[6]), state[7] or ''
local changed = false
local length = redis.call('XLEN', log)

local function text(number)
    return string.format('%.0f', number)
end

local function at(id) -- the position of an entry
    return tonumber(string.match(id, '%d+'))
end

if events and length > events then -- somebody else has written to the stream
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
    length = redis.call('XLEN', log)
end

if length ~= (events or -1) then -- no history yet, or somebody has deleted a key of it
    redis.call('HLEN', claims) -- fails for a key of another type, which we must not delete
    redis.call('ZCARD', places)
    redis.call('HLEN', cuts)
    redis.call('ZCARD', cut_names)
    redis.call('ZCARD', cut_order)
    redis.call('UNLINK', log, claims, places, cuts, cut_names, cut_order)
    epoch, newest, oldest, events, bytes, floor, timelines, changed = new_epoch, 0, 0, 0, 0, 0, '', true
elseif not floor then -- the layout before, in which nothing told of what was dropped, and of holes in the order
    floor, changed = (events == newest - oldest) and oldest or newest, true
end

local function renew() -- goes on under another name behind what is there
    local _, many = string.gsub(timelines, '%S+', '')
    if many >= most_timelines then
        timelines = string.gsub(timelines, '^ %S+', '')
    end
    timelines = timelines .. ' ' .. epoch .. '-' .. text(newest)
    epoch, changed = new_epoch, true
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

local function save()
    if changed then
        redis.call('HSET', state_key, 'epoch', epoch, 'newest', text(newest), 'oldest', text(oldest),
            'events', text(events), 'bytes', text(bytes), 'floor', text(floor), 'timelines', timelines,
            'version', VERSION)
    end
end

local function bounds()
    return {epoch, oldest, newest, bytes, floor, timelines}
end
""".replace("VERSION", str(VERSION))
"""The beginning of the scripts that need the state: reads it, drops what others have added to the stream, begins a
history if there is none, and defines `save`, `renew` for a new timeline, `claim` for the chosen id of an entry,
`disclaim` for one that is dropped, and `bounds` for an answer.

The hash `claims` has, for each chosen id with the digest of its topics, the position and the digest of the content. The
sorted set `places` has a member for each of them, with id, position and digest of the topics, in this order, so that
all events of an id are found in order, and the claim of an entry that is dropped."""

APPEND = """
local seen_epoch, seen, mode, first = ARGV[4], tonumber(ARGV[5]), ARGV[6], 8
changed = changed or ARGV[7] ~= '0' -- replicas are waited for as far as this connection has written
local kept, is_refused, after, lost = {}, mode == 'look', newest, 0
if epoch == seen_epoch and newest < seen then -- what was published under this name behind the end is lost
    lost = seen - newest
    renew()
end
for place = first, #ARGV, 4 do -- look at all ids before anything is written
    local id, topics, content = ARGV[place], ARGV[place + 1], ARGV[place + 2]
    local known = id ~= '' and redis.call('HGET', claims, id .. ' ' .. topics)
    kept[#kept + 1] = known or ''
    is_refused = is_refused or (known and (mode == 'refuse' or string.match(known, ' (.*)') ~= content))
end
if not is_refused then
    local time = redis.call('TIME')
    local now = time[1] * 1000 + math.floor(time[2] / 1000)
    local suffix = '-' .. text(tonumber(epoch, 16))
    for place = first, #ARGV, 4 do
        if kept[(place - first) / 4 + 1] == '' then
            local id, record = ARGV[place], ARGV[place + 3]
            newest, events, bytes, changed = newest + 1, events + 1, bytes + #record + overhead, true
            if id == '' then
                redis.call('XADD', log, text(newest) .. suffix, 'record', record, 'time', now)
            else
                redis.call('XADD', log, text(newest) .. suffix, 'record', record, 'time', now, 'id', id)
                claim(id, ARGV[place + 1], ARGV[place + 2], newest)
            end
        end
    end
end
save()
return {epoch, lost, after, kept}
"""
"""Appends the events in the arguments, all or nothing: id, digest of the topics, digest of the content, record; no two
have the same id and topics. It stores nothing if the history has one with other content, in the mode `refuse` if it has
one at all, in the mode `look` in any case. Returns the position before them, and what the history has had of each. The
arguments before say what the caller has ever seen, for a history that has less goes on under another name, and how many
replicas it waits for."""

LOOK = """
local server = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
    .. string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
local known = redis.call('HGET', state_key, 'server')
if known ~= server then
    redis.call('HDEL', state_key, 'nothing') -- a script that has written may write on when memory has run out
    redis.call('HSET', state_key, 'server', server)
    if known and newest > 0 then
        renew()
    end
end
save()
return bounds()
"""
"""Returns what the history has. It goes on under another name if it was in another process when it was last looked at,
or if this one was a replica meanwhile: then its end may have been cut off, whether the caller has seen it or not. So
each connection begins with this."""

RENEW = """
local named, channel = ARGV[4], ARGV[5]
local others = 0
if named == '' and newest > 0 then
    others = redis.call('PUBSUB', 'NUMSUB', channel)[2] - 1
end
if named == epoch or (named == '' and newest > 0 and others <= 0) then
    redis.call('HDEL', state_key, 'nothing') -- a script that has written may write on when memory has run out
    renew()
end
save()
local answer = bounds()
answer[#answer + 1] = others
return answer
"""
"""Begins a new timeline if the history has this name; without a name, if there is something in it and nobody but the
caller listens on a channel. Returns what the history has, and how many others listen."""

DROP = """
local named, left = ARGV[4], tonumber(ARGV[5])
local floor_asked, given, ranges = unpack(cmsgpack.unpack(ARGV[6]))
if named ~= epoch then -- the positions are another history's
    save()
    return {epoch, 0, 0}
end
redis.call('HDEL', state_key, 'nothing') -- a script that has written may write on when memory has run out
if floor_asked > floor then
    floor, changed = floor_asked, true
end
for place = 1, #given, 3 do
    local topic, public, private = given[place], given[place + 1], given[place + 2]
    local known = redis.call('HGET', cuts, topic)
    if known then
        local public_known, private_known = string.match(known, '(%d+) (%d+)')
        public, private = math.max(public, tonumber(public_known)), math.max(private, tonumber(private_known))
    end
    if math.max(public, private) > floor then
        redis.call('HSET', cuts, topic, text(public) .. ' ' .. text(private))
        redis.call('ZADD', cut_names, 0, topic)
        redis.call('ZADD', cut_order, text(math.max(public, private)), topic)
    end
end
local ids = {}
local function delete(most)
    if #ids > most then
        redis.call('XDEL', log, unpack(ids))
        ids = {}
    end
end
local last = 0
for place = 1, #ranges, 2 do
    local start, stop, is_front = ranges[place], ranges[place + 1], ranges[place] <= oldest + 1
    while start <= stop and left > 0 do
        local page = redis.call('XRANGE', log, text(start), text(stop), 'COUNT', math.min(stop - start + 1, 64))
        for _, entry in ipairs(page) do
            local record, id = entry[2][2], entry[2][6]
            if id then
                disclaim(id, at(entry[1]))
            end
            if not is_front then
                ids[#ids + 1] = entry[1]
            end
            changed, events, bytes = true, events - 1, bytes - #record - overhead
            left = left - #record - 16384 -- what it costs to find one is as much as to read so many bytes
        end
        last = #page < 64 and stop or at(page[64][1])
        if is_front and #page > 0 then
            redis.call('XTRIM', log, 'MINID', text(last + 1))
        end
        start = last + 1
        delete(64)
    end
    if is_front then
        local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
        oldest = first and at(first[1]) - 1 or newest
    end
    if left <= 0 then
        break
    end
end
delete(0)
local forgotten = redis.call('ZRANGEBYSCORE', cut_order, '-inf', text(floor), 'LIMIT', 0, 1000)
if #forgotten > 0 then
    redis.call('HDEL', cuts, unpack(forgotten))
    redis.call('ZREM', cut_names, unpack(forgotten))
    redis.call('ZREM', cut_order, unpack(forgotten))
end
save()
return {epoch, left > 0 and 0 or last, #forgotten}
"""
"""Remembers cuts (topic, position of the newest event dropped, and of the newest private one), and drops the entries in
ranges of positions (the first and the last of each), until they have had so many bytes. These come as one MessagePack:
thousands of arguments would take longer than what is done. Returns the last position as
far as which it has dropped if there may be more, and how many cuts it has forgotten, 1,000 at most.

The hash `cuts` has the two positions of each topic; two sorted sets have the topics: `cut-names` in the order of their
bytes, and `cut-order` by the newer position. At the front of the stream entries are trimmed, which frees them node by
node; elsewhere they are marked as deleted, and a node is freed when the last of its entries is."""

CUTS = """
local names = redis.call('ZRANGEBYLEX', KEYS[2], ARGV[1], '+', 'LIMIT', 0, tonumber(ARGV[2]))
return {names, #names > 0 and redis.call('HMGET', KEYS[1], unpack(names)) or {}}
"""
"""Returns the next topics that have a cut, and the cuts. It runs without `BEGIN`."""

FIND = """
save()
local id, after, most, left, made = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]
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
local old = KEYS[8]
for place = 4, #ARGV, 4 do
    local id, position = ARGV[place], tonumber(ARGV[place + 3])
    if position > oldest and redis.call('HGET', old, id) == ARGV[place + 3] then
        claim(id, ARGV[place + 1], ARGV[place + 2], position)
    end
    redis.call('HDEL', old, id)
end
save()
return redis.call('HLEN', old)
"""
"""Takes events of the layout before, which had a hash with the position of each chosen id, into `claims` and `places`:
id, digest of the topics, digest of the content, position. Returns how many are left in the hash."""

PAGE = """
local most, left, ranges = tonumber(ARGV[1]), tonumber(ARGV[2]), cmsgpack.unpack(ARGV[3])
local state = redis.call('HMGET', KEYS[1], 'epoch', 'newest')
local newest, page = tonumber(state[2]) or 0, {state[1] or ''}
for place = 1, #ranges, 2 do
    local start = string.format('%.0f', ranges[place])
    local stop = string.format('%.0f', math.min(ranges[place + 1], newest))
    while most > 0 and left > 0 do
        local step = math.min(most, 16)
        local entries = redis.call('XRANGE', KEYS[2], start, stop, 'COUNT', step)
        for _, entry in ipairs(entries) do
            if left <= 0 then
                break
            end
            page[#page + 1] = entry[1]
            page[#page + 1] = entry[2][2]
            page[#page + 1] = entry[2][4] or ''
            left = left - #entry[2][2]
        end
        most = most - #entries
        if #entries < step then
            break
        end
        start = '(' .. entries[#entries][1]
    end
end
return page
"""
"""Returns the name of the history, and id, record and time of the entries in ranges of positions (the first and the
last of each), up to a number of entries and of bytes. What others have added behind the end does not count yet. It runs
without `BEGIN`."""

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
