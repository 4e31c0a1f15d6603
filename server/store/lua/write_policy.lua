-- Change the chat policy of a show and tell every hub. Lines of who is banned, or was, disappear
-- from the danmaku kept for those who join; an event user_removed takes them from every page.
--
-- KEYS    1 policy  2 state  3 room  4 events  5 bus channel  6 chat
-- ARGV    1 msgpack, flat: fields and values to set  2 msgpack: fields to delete
--         3 slow mode in s, or '' when it does not change  4 msgpack: users to be removed
--         5.. the entries of chat to be forgotten
-- Returns the policy's new version
-- Errors  CORRUPT; nothing was written.
--
-- Fields: slow, words (msgpack), mute:<user> until ms, ban:<user> since ms, version. Values are
-- absolute, so a repeat changes nothing but the version (and tells of the removed once more).

-- include: _values
-- include: _room
-- include: _chat

local POLICY, CHAT = KEYS[1], KEYS[6]
local ROOM = {state = KEYS[2], room = KEYS[3], events = KEYS[4], bus = KEYS[5]}
local CHUNK = 1000 -- well below what unpack() can put on the stack; even

local values, fields = cmsgpack.unpack(ARGV[1]), cmsgpack.unpack(ARGV[2])
local removed = cmsgpack.unpack(ARGV[4])

local function in_chunks(command, list)
  for from = 1, #list, CHUNK do
    redis.call(command, POLICY, unpack(list, from, math.min(from + CHUNK - 1, #list)))
  end
end

expect('hash', POLICY)
expect('list', CHAT)
check_room(ROOM)
local version = whole(redis.call('HGET', POLICY, 'version'), 'policy version', 0) + 1
local now = now_in_ms()
read_room(ROOM, now)

in_chunks('HSET', values)
in_chunks('HDEL', fields)
redis.call('HSET', POLICY, 'version', version)
if ARGV[3] ~= '' then
  publish_room_state(ROOM, 'room', {slow_mode_s = whole(ARGV[3], 'slow mode')}, false)
end
redis.call('SPUBLISH', ROOM.bus, cmsgpack.pack({'p', version}))
forget_lines(CHAT, {unpack(ARGV, 5)})
for _, user in ipairs(removed) do
  publish_event(ROOM, {k = 'user_removed', at = now, user = user})
end
return version
