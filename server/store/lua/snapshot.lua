-- One consistent cut of everything a viewer may see. Writes nothing.
--
-- KEYS    1 meta  2 room  3 state  4 chat
-- ARGV    none
-- Returns {now ms, room epoch, seq, stock epoch, gate, id of the rebuild under way, state (flat),
--         chat lines}; an absent number is '0', an absent text ''; nil when Redis knows neither
--         show nor room
-- Errors  WRONGTYPE

-- include: _values

local room = redis.call('HMGET', KEYS[2], 'epoch', 'seq')
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'gate', 'rebuild')
if not (room[1] or meta[1]) then return nil end
return {
  now_in_ms(), room[1] or '0', room[2] or '0', meta[1] or '0', meta[2] or '',
  meta[2] == 'rebuilding' and meta[3] or '',
  redis.call('HGETALL', KEYS[3]), redis.call('LRANGE', KEYS[4], 0, -1),
}
