-- Write one pool of a show that is being rebuilt, and tell viewers.
--
-- KEYS    1 meta  2 pool  3 state  4 bus channel
-- ARGV    1 stock epoch  2 id of the rebuild  3 pool id
--         4 msgpack map: fields of the pool's hash (_pool.lua)
-- Returns 1, or 0 when another rebuild has the show; nothing was changed then
-- Errors  CORRUPT, WRONGTYPE; nothing was written. Idempotent.
--
-- The values carry the new epoch, so that they replace whatever viewers were shown before.

-- include: _values
-- include: _gate
-- include: _rebuild
-- include: _room
-- include: _pool
-- include: _sale

local ROOM = {state = KEYS[3], bus = KEYS[4]}

if not is_current(KEYS[1], ARGV[1], ARGV[2]) then return 0 end
local pool, flat = cmsgpack.unpack(ARGV[4]), {}
expect('hash', KEYS[2], ROOM.state)
for name, value in pairs(pool) do
  flat[#flat + 1] = name
  flat[#flat + 1] = value
end
pool.id = whole(ARGV[3], 'pool id')
local epoch = whole(ARGV[1], 'stock epoch')
local sale = sale_value(pool, epoch)
redis.call('HSET', KEYS[2], unpack(flat))
publish_state(ROOM, string.format('sale:%.0f', pool.id), sale, true)
publish_stock(ROOM, pool, epoch, true)
return 1
