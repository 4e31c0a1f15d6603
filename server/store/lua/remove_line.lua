-- Take a danmaku line back: those who join do not get it, everybody else is told to forget it.
--
-- KEYS    1 applied  2 chat  3 state  4 room  5 events  6 bus channel
-- ARGV    1 field in applied, of the act that caused it  2 id of the line  3.. the entries of chat
--           that hold it
-- Returns seq of the event line_removed
-- Errors  CORRUPT; nothing was written.
--
-- Idempotent by the act: a repeat returns the first seq, publishes nothing and forgets nothing.

-- include: _values
-- include: _room
-- include: _chat

local APPLIED, CHAT = KEYS[1], KEYS[2]
local ROOM = {state = KEYS[3], room = KEYS[4], events = KEYS[5], bus = KEYS[6]}

expect('hash', APPLIED)
expect('list', CHAT)
check_room(ROOM)
local done = redis.call('HGET', APPLIED, ARGV[1])
if done then return whole(done, 'applied seq') end
local now = now_in_ms()
read_room(ROOM, now)
redis.call('HSET', APPLIED, ARGV[1], ROOM.seq + 1)
forget_lines(CHAT, {unpack(ARGV, 3)})
return publish_event(ROOM, {k = 'line_removed', at = now, line = ARGV[2]})
