-- What viewers are told: state values (newest wins) and numbered events, stored and published in
-- the same call that makes them true. `room` is {room =, events =, state =, bus =}: three keys
-- and the channel. Include _values first.

-- Check the types of the room's keys; to be called before the script's first write.
local function check_room(room)
  expect('hash', room.room, room.state)
  expect('stream', room.events)
end

-- Load epoch, seq and v (the version of the last state value). A room without an epoch gets one
-- from the clock, so that it is above any epoch it had before. The stream's last id counts too,
-- because XADD refuses to go back.
local function read_room(room, now)
  local fields = redis.call('HMGET', room.room, 'epoch', 'seq', 'v')
  room.epoch = whole(fields[1], 'room epoch', math.floor(now / 1000))
  room.seq = whole(fields[2], 'room seq', 0)
  room.v = whole(fields[3], 'room v', 0)
  local last = redis.call('XREVRANGE', room.events, '+', '-', 'COUNT', 1)[1]
  if last then room.seq = math.max(room.seq, whole(string.match(last[1], '^%d+'), 'event id')) end
end

-- Store and publish the value of a state key; `edge`: hubs flush it at once.
local function publish_state(room, key, value, edge)
  local packed = cmsgpack.pack(value)
  redis.call('HSET', room.state, key, packed)
  local fact = '\148' .. cmsgpack.pack('s', key) .. packed .. cmsgpack.pack(edge)
  redis.call('SPUBLISH', room.bus, fact)
end

-- The same for a value of the room itself, which takes the room's epoch and next version.
local function publish_room_state(room, key, value, edge)
  room.v = room.v + 1
  value.epoch, value.version = room.epoch, room.v
  redis.call('HSET', room.room, 'epoch', room.epoch, 'v', room.v)
  publish_state(room, key, value, edge)
end

-- Append an event with the next number, publish it, return its number.
local function publish_event(room, event)
  room.seq = room.seq + 1
  event.seq = room.seq
  local packed = cmsgpack.pack(event)
  redis.call('HSET', room.room, 'epoch', room.epoch, 'seq', room.seq)
  local id = string.format('%.0f-0', room.seq)
  redis.call('XADD', room.events, 'MAXLEN', '=', LIMIT.HISTORY_EVENTS_MAX, id, 'm', packed)
  redis.call('SPUBLISH', room.bus, '\147' .. cmsgpack.pack('e', room.epoch) .. packed)
  return room.seq
end

local function publish_sale_phase(room, now, sale, what)
  return publish_event(room, {k = 'sale_phase', at = now, sale = sale, what = what})
end
