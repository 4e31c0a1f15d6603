-- The events that follow one number without a gap. Writes nothing.
--
-- KEYS    1 room  2 events
-- ARGV    1 room epoch  2 seq already known  3 most events wanted
-- Returns packed events in order, perhaps none; nil when they cannot be had without a gap (other
--         epoch, number from the future, trimmed away, or more than wanted)
-- Errors  CORRUPT, WRONGTYPE

-- include: _values

local known, most = whole(ARGV[2], 'seq'), whole(ARGV[3], 'limit')
local room = redis.call('HMGET', KEYS[1], 'epoch', 'seq')
if room[1] ~= ARGV[1] then return nil end
local missing = whole(room[2], 'room seq', 0) - known
if missing < 0 or missing > most then return nil end

local from = string.format('(%.0f-0', known)
local entries = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', most)
if #entries ~= missing then return nil end
local events = {}
for i, entry in ipairs(entries) do events[i] = entry[2][2] end
return events
