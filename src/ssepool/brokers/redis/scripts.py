"""The scripts that Redis runs, in Lua. Each reads and writes the keys of one history in one step.

The id of an entry in the stream is `<position>-<epoch as a number>`, so a reader sees to which history it belongs.
"""

from __future__ import annotations

BEGIN = """
local state_key, log, ids = KEYS[1], KEYS[2], KEYS[3]
local new_epoch, seen_epoch, seen = ARGV[1], ARGV[2], tonumber(ARGV[3])
local most_events, most_bytes, grace = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local spare_events, spare_bytes, overhead = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local state = redis.call('HMGET', state_key, 'epoch', 'newest', 'oldest', 'events', 'bytes')
local epoch, newest, oldest, events, bytes = state[1], tonumber(state[2]), tonumber(state[3]), tonumber(state[4]),
    tonumber(state[5])
local changed, lost = false, 0

if redis.call('XLEN', log) ~= (events or -1) then -- no history yet, or somebody has deleted a key of it
    redis.call('HLEN', ids) -- fails for a key of another type, which we must not delete
    redis.call('UNLINK', log, ids)
    epoch, newest, oldest, events, bytes, changed = new_epoch, 0, 0, 0, 0, true
elseif epoch == seen_epoch and newest < seen then -- a crash took the newest entries: never use their positions again
    lost, newest, changed = seen - newest, seen, true
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
                redis.call('HDEL', ids, id)
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
        local function text(number)
            return string.format('%.0f', number)
        end
        redis.call('HSET', state_key, 'epoch', epoch, 'newest', text(newest), 'oldest', text(oldest),
            'events', text(events), 'bytes', text(bytes))
    end
end
"""
"""The beginning of `APPEND`, `LOOK` and `FIND`: reads the state, begins a history if there is none, and defines `save`,
and `drop` for the entries beyond the bounds."""

APPEND = """
local refuse, most, first = ARGV[10] == 'refuse', tonumber(ARGV[11]), 12
local places, chosen, next_place = {}, {}, newest + 1
for at = first, #ARGV, 2 do -- look at all ids before anything is written
    local id = ARGV[at]
    local place = id ~= '' and (chosen[id] or tonumber(redis.call('HGET', ids, id) or nil))
    if place then
        if refuse then
            return {'duplicate', id}
        end
    else
        place, next_place = next_place, next_place + 1
        chosen[id] = place
    end
    places[#places + 1] = place
end
local suffix = '-' .. string.format('%.0f', tonumber(epoch, 16))
for at = first, #ARGV, 2 do
    local id, record, place = ARGV[at], ARGV[at + 1], places[(at - first) / 2 + 1]
    if place > newest then
        local position = string.format('%.0f', place)
        if id == '' then
            redis.call('XADD', log, position .. suffix, 'record', record, 'time', now)
        else
            redis.call('XADD', log, position .. suffix, 'record', record, 'time', now, 'id', id)
            redis.call('HSET', ids, id, position)
        end
        newest, events, bytes, changed = place, events + 1, bytes + #record + overhead, true
    end
end
drop(2 * #places + most, nil)
save()
return {'stored', epoch, lost, places}
"""
"""Appends the events in the arguments, all or nothing. Returns where each is, or the first refused id."""

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
local place = redis.call('HGET', ids, ARGV[12])
if place then
    return tonumber(place)
end
if ARGV[13] ~= '' and #redis.call('XRANGE', log, ARGV[13], ARGV[13]) > 0 then
    return tonumber(string.match(ARGV[13], '%d+'))
end
return nil
"""
"""Returns the position of an event by its chosen id, or by the id of its entry."""

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
