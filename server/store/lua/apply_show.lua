-- Bring a show's gate and what viewers see of it up to a revision of its row.
--
-- KEYS    1 meta  2 state  3 room  4 events  5 bus channel  6 orders  7 counts
-- ARGV    1 revision  2 '1' when the show may be made  3 stock epoch, only for making it
--         4 gate  5 phase  6 pinned product  10 consumer group, only for making the show
--         7, 8, 9 msgpack maps: values of the state keys show, pin, runlist (no epoch, version)
--         11 seconds that the counts of an ended show are kept
-- Returns 'applied' (now or before), 'stale' (a newer revision is in force) or 'missing'
-- Errors  CORRUPT; nothing was written.
--
-- Idempotent. A gate closed for rebuilding is left closed: whoever rebuilds opens it. A value
-- is published only when it differs from the last one, told by its digest.

-- include: _values
-- include: _gate
-- include: _room

local META, ORDERS = KEYS[1], KEYS[6]
local ROOM = {state = KEYS[2], room = KEYS[3], events = KEYS[4], bus = KEYS[5]}

local revision, gate, phase = whole(ARGV[1], 'revision'), ARGV[4], ARGV[5]
local product = whole(ARGV[6], 'product')

local function publish_changed(key, packed, edge)
  local digest, field = redis.sha1hex(packed), 'digest:' .. key
  if redis.call('HGET', ROOM.room, field) == digest then return false end
  publish_room_state(ROOM, key, cmsgpack.unpack(packed), edge)
  redis.call('HSET', ROOM.room, field, digest)
  return true
end

-- Values that exist before anybody touched them, so that a snapshot always has them.
local function publish_first_values()
  publish_room_state(ROOM, 'room', {slow_mode_s = 0}, false)
  publish_room_state(ROOM, 'likes', {total = 0}, false)
  publish_room_state(ROOM, 'online', {people = 0}, false)
end

-- The order stream with its group exists from here on: should it be missing, it was lost.
local function make_stock()
  redis.call('HSET', META, 'run', run_id())
  if redis.call('EXISTS', ORDERS) == 0 then
    redis.call('XGROUP', 'CREATE', ORDERS, ARGV[10], '0', 'MKSTREAM')
  end
end

expect('hash', META)
expect('stream', ORDERS)
check_room(ROOM)
local meta = redis.call('HMGET', META, 'epoch', 'rev', 'gate', 'phase')
if not meta[1] and ARGV[2] ~= '1' then return 'missing' end
local in_force = whole(meta[2], 'revision', -1)
if in_force >= revision then return in_force == revision and 'applied' or 'stale' end

local now = now_in_ms()
local epoch = whole(meta[1] or ARGV[3], 'stock epoch')
local is_new = redis.call('HEXISTS', ROOM.room, 'digest:show') == 0
read_room(ROOM, now)
if meta[3] == 'rebuilding' then gate = 'rebuilding' end
redis.call('HSET', META, 'epoch', epoch, 'rev', revision, 'gate', gate, 'phase', phase)
if not meta[1] then make_stock() end
if phase == 'ended' and redis.call('TTL', KEYS[7]) < 0 then
  redis.call('EXPIRE', KEYS[7], ARGV[11])
end
if is_new then publish_first_values() end
publish_changed('show', ARGV[7], true)
local pin_changed = publish_changed('pin', ARGV[8], true)
publish_changed('runlist', ARGV[9], false)
if not is_new and meta[4] ~= phase then
  publish_event(ROOM, {k = 'show_phase', at = now, phase = phase})
end
if not is_new and pin_changed then
  publish_event(ROOM, {k = 'pinned', at = now, product = product})
end
return 'applied'
