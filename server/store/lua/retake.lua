-- Take units again for an order that was paid after its time had passed.
--
-- KEYS    1 meta  2 pool  3 buyers  4 applied  5 orders  6 state  7 room  8 events  9 bus channel
-- ARGV    1 pool id  2 payment id (16 bytes)  3 its text form, field in applied  4 buyer
--         5 units  6 units of them that count anew against the buyer's limit  7 price
--         8 price version
-- Returns {code, seq, before}: code 0, with before 1 when an earlier call did it, or
--         stock_rebuilding, unknown_sale, sold_out, out_of_stock, limit_reached; nothing changed
-- Errors  CORRUPT, BADTAKE; nothing was written.
--
-- Idempotent by payment id. Stock and the buyer's limit decide as for a claim; the window does not:
-- the order was made in time, and a sale that is closed has no units left. The take is numbered
-- with the claims in the order stream, and PostgreSQL has the last word there. The writes are
-- ordered as in claim_batch.lua: being cut short could only strand units.

-- include: _values
-- include: _gate
-- include: _room
-- include: _pool

local META, POOL, BUYERS, APPLIED, ORDERS = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local ROOM = {state = KEYS[6], room = KEYS[7], events = KEYS[8], bus = KEYS[9]}
local RETAKE = 3

local pool_id, buyer = whole(ARGV[1], 'pool id'), ARGV[4]
local units, counted = whole(ARGV[5], 'units'), whole(ARGV[6], 'counted units')
local price, price_version = whole(ARGV[7], 'price'), whole(ARGV[8], 'price version')
if units < 1 or counted < 0 or counted > units or buyer == '' then error('BADTAKE units') end

local function refusal_of(pool, bought)
  if bought + counted > whole(pool.lim, 'limit') then return CODE.limit_reached end
  if pool.a == 0 then return CODE.sold_out end
  if units > pool.a then return CODE.out_of_stock end
end

expect('hash', META, POOL, BUYERS, APPLIED)
expect('stream', ORDERS)
check_room(ROOM)
local done = redis.call('HGET', APPLIED, ARGV[3])
if done then return {0, cmsgpack.unpack(done)[2], 1} end
local epoch, gate = read_gate(META)
if gate == 'rebuilding' then return {CODE.stock_rebuilding, 0, 0} end
local pool = read_pool(POOL, pool_id, {'lim'})
if not pool then return {CODE.unknown_sale, 0, 0} end
local bought = whole(redis.call('HGET', BUYERS, buyer), 'buyer units', 0)
local refusal = refusal_of(pool, bought)
if refusal then return {refusal, 0, 0} end

local now = now_in_ms()
read_room(ROOM, now)
pool.a, pool.q, pool.v = pool.a - units, pool.q + 1, pool.v + 1

redis.call('HSET', POOL, 'a', pool.a, 'q', pool.q, 'v', pool.v)
local take = cmsgpack.pack(
  RETAKE, pool.id, pool.q, buyer, ARGV[2], units, price, price_version, now)
redis.call('XADD', ORDERS, '*', 'e', epoch, 'h', '', 't', '\145\153' .. take)
redis.call('HSET', APPLIED, ARGV[3], cmsgpack.pack({units, pool.q}))
redis.call('HSET', BUYERS, buyer, bought + counted)
publish_stock(ROOM, pool, epoch, pool.a == 0)
if pool.a == 0 then publish_sale_phase(ROOM, now, pool.id, 'sold_out') end
return {0, pool.q, 0}
