-- One hub says how many people watch there; the sum over all hubs is published when it changed.
--
-- KEYS    1 presence  2 like_batches  3 state  4 room  5 events  6 bus channel
-- ARGV    1 id of the hub  2 people  3 ms for which the report counts
-- Returns people watching, all hubs together
-- Errors  CORRUPT; nothing was written.
--
-- Idempotent. A hub's entry is 'people:expires at ms'. Hubs that stayed silent for FORGET_MS
-- after that are forgotten, together with their number of like batches.

-- include: _values
-- include: _room

local PRESENCE, BATCHES = KEYS[1], KEYS[2]
local ROOM = {state = KEYS[3], room = KEYS[4], events = KEYS[5], bus = KEYS[6]}
local FORGET_MS = 600000

local hub, people, ttl_ms = ARGV[1], whole(ARGV[2], 'people'), whole(ARGV[3], 'ttl')

-- People on the other hubs, and the hubs to forget.
local function count_others(now)
  local sum, gone = 0, {}
  local entries = redis.call('HGETALL', PRESENCE)
  for i = 1, #entries, 2 do
    local there, expires = string.match(entries[i + 1], '^(%d+):(%d+)$')
    expires = whole(expires, 'presence expiry')
    if expires + FORGET_MS < now then
      gone[#gone + 1] = entries[i]
    elseif entries[i] ~= hub and expires > now then
      sum = sum + whole(there, 'people')
    end
  end
  return sum, gone
end

expect('hash', PRESENCE, BATCHES)
check_room(ROOM)
local now = now_in_ms()
local others, gone = count_others(now)
local total = others + people
local before = whole(redis.call('HGET', ROOM.room, 'online'), 'online', -1)
read_room(ROOM, now)

for _, name in ipairs(gone) do
  redis.call('HDEL', PRESENCE, name)
  redis.call('HDEL', BATCHES, name)
end
redis.call('HSET', PRESENCE, hub, string.format('%.0f:%.0f', people, now + ttl_ms))
if total ~= before then
  redis.call('HSET', ROOM.room, 'online', total)
  publish_room_state(ROOM, 'online', {people = total}, false)
end
return total
