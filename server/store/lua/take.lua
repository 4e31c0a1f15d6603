-- The host takes units back: lowers the stock, or closes the sale and takes what is left.
--
-- KEYS    1 meta  2 pool  3 applied  4 orders  5 state  6 room  7 events  8 bus channel
-- ARGV    1 pool id  2 act id (16 bytes)  3 its text form, field in applied
--         4 units, or '' for all that is left  5 '1' to close the sale
-- Returns {code, units, seq, before}: code 0, with before 1 when an earlier call did it, or
--         stock_rebuilding, unknown_sale, out_of_stock (fewer units are left); nothing changed
-- Errors  CORRUPT, BADTAKE; nothing was written.
--
-- Idempotent by act id. The take is numbered with the claims in the order stream, so that it
-- reaches PostgreSQL as safely as they do; a closing is recorded even when no unit was left.

-- include: _values
-- include: _gate
-- include: _room
-- include: _pool
-- include: _sale

local META, POOL, APPLIED, ORDERS = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local ROOM = {state = KEYS[5], room = KEYS[6], events = KEYS[7], bus = KEYS[8]}
local LOWERING, CLOSING = 1, 2

local pool_id = whole(ARGV[1], 'pool id')
local asked, closing = ARGV[4] ~= '' and whole(ARGV[4], 'units'), ARGV[5] == '1'
if asked and asked < 0 then error('BADTAKE units') end

expect('hash', META, POOL, APPLIED)
expect('stream', ORDERS)
check_room(ROOM)
local done = redis.call('HGET', APPLIED, ARGV[3])
if done then
  local units, seq = unpack(cmsgpack.unpack(done))
  return {0, units, seq, 1}
end
local epoch, gate = read_gate(META)
if gate == 'rebuilding' then return {CODE.stock_rebuilding, 0, 0, 0} end
local pool = read_pool(POOL, pool_id, SALE_FIELDS)
if not pool then return {CODE.unknown_sale, 0, 0, 0} end
local units = asked or pool.a
if units > pool.a then return {CODE.out_of_stock, 0, 0, 0} end

local now = now_in_ms()
local was_open = pool.st ~= 'closed'
read_room(ROOM, now)
pool.a, pool.n, pool.q, pool.v = pool.a - units, pool.n - units, pool.q + 1, pool.v + 1
if closing then pool.st = 'closed' end
local sale = sale_value(pool, epoch)

redis.call('HSET', POOL, 'a', pool.a, 'n', pool.n, 'q', pool.q, 'v', pool.v, 'st', pool.st)
local take = cmsgpack.pack(
  closing and CLOSING or LOWERING, pool.id, pool.q, '', ARGV[2], units, sale.price,
  sale.price_version, now)
redis.call('XADD', ORDERS, '*', 'e', epoch, 'h', '', 't', '\145\153' .. take)
redis.call('HSET', APPLIED, ARGV[3], cmsgpack.pack({units, pool.q}))
publish_stock(ROOM, pool, epoch, true)
if closing and was_open then
  publish_state(ROOM, string.format('sale:%.0f', pool.id), sale, true)
  publish_sale_phase(ROOM, now, pool.id, 'closed')
elseif not closing and units > 0 then
  publish_sale_phase(ROOM, now, pool.id, 'lowered')
end
return {0, units, pool.q, 0}
