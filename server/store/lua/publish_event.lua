-- Append an event that must not be missed (lane L2) and publish it.
--
-- KEYS    1 applied  2 state  3 room  4 events  5 bus channel
-- ARGV    1 field in applied, of the act that caused it  2 msgpack map: the event with its kind
--           `k`, without seq and at
-- Returns seq of the event
-- Errors  CORRUPT; nothing was written.
--
-- Idempotent by the act: a repeat returns the first seq and publishes nothing.

-- include: _values
-- include: _room

local APPLIED = KEYS[1]
local ROOM = {state = KEYS[2], room = KEYS[3], events = KEYS[4], bus = KEYS[5]}

expect('hash', APPLIED)
check_room(ROOM)
local done = redis.call('HGET', APPLIED, ARGV[1])
if done then return whole(done, 'applied seq') end
local event, now = cmsgpack.unpack(ARGV[2]), now_in_ms()
event.at = now
read_room(ROOM, now)
redis.call('HSET', APPLIED, ARGV[1], ROOM.seq + 1)
return publish_event(ROOM, event)
