-- Take a danmaku line back: those who join do not get it, everybody else is told to forget it.
--
-- KEYS    1 applied  2 chat  3 state  4 room  5 events  6 bus channel
-- ARGV    1 field in applied, of the line  2 id of the line  3.. the entries of chat that hold it
-- Returns seq of the event line_removed
-- Errors  CORRUPT; nothing was written.
--
-- Idempotent by the line: a repeat returns the first seq and publishes nothing, or whoever asks
-- again and again would push all other events out of the history. What was stored since goes.

-- include: _values
-- include: _room
-- include: _chat

local APPLIED, CHAT = KEYS[1], KEYS[2]
local ROOM = {state = KEYS[3], room = KEYS[4], events = KEYS[5], bus = KEYS[6]}

expect('hash', APPLIED)
expect('list', CHAT)
check_room(ROOM)
local done = redis.call('HGET', APPLIED, ARGV[1])
local first = done and whole(done, 'applied seq')
local now = now_in_ms()
read_room(ROOM, now)
forget_lines(CHAT, {unpack(ARGV, 3)})
if first then return first end
redis.call('HSET', APPLIED, ARGV[1], ROOM.seq + 1)
return publish_event(ROOM, {k = 'line_removed', at = now, line = ARGV[2]})
