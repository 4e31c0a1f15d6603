-- Add the likes one hub counted during one tick.
--
-- KEYS    1 like_batches  2 state  3 room  4 events  5 bus channel
-- ARGV    1 id of the hub  2 number of the batch, rising  3 taps
-- Returns the show's total
-- Errors  CORRUPT; nothing was written.
--
-- Idempotent by hub and batch number: a batch at or below the hub's last one adds nothing.

-- include: _values
-- include: _room

local BATCHES = KEYS[1]
local ROOM = {state = KEYS[2], room = KEYS[3], events = KEYS[4], bus = KEYS[5]}

local number, taps = whole(ARGV[2], 'batch number'), whole(ARGV[3], 'taps')
expect('hash', BATCHES)
check_room(ROOM)
local last = whole(redis.call('HGET', BATCHES, ARGV[1]), 'batch number', -1)
local total = whole(redis.call('HGET', ROOM.room, 'likes'), 'likes', 0)
if number <= last or taps <= 0 then return total end

total = total + taps
read_room(ROOM, now_in_ms())
redis.call('HSET', BATCHES, ARGV[1], number)
redis.call('HSET', ROOM.room, 'likes', total)
publish_room_state(ROOM, 'likes', {total = total}, false)
return total
