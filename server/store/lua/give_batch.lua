-- Units return to pools, as PostgreSQL decided under the ids of the gives.
--
-- KEYS    1 meta  2 claims  3 applied  4 state  5 room  6 events  7 bus channel, then for every
--         pool, from 8 on: its hash and its buyers
-- ARGV    1 msgpack: pool ids, in the order of KEYS
--         2 msgpack, flat, per give: give id, number of the pool (from 1), units, reason,
--           buyer ('' for a restock), 1 when the buyer's count falls (else 0), field in claims
--           ('' for none), claim id as text, order id (0: no order), pay by
--         3 msgpack, flat: pool number, reserved, sold, dead, version of its row
-- Returns {code, flags}: code 0 and per give 1 (in force, now or before) or 0 (no such pool);
--         or stock_rebuilding, nothing changed
-- Errors  CORRUPT, BADBATCH; nothing was written.
--
-- Idempotent by give id, within one batch too. The marks in applied and the claims' new states are
-- written before the units: being cut short could only strand units, never give them twice.
-- Counters come along because a refund moves a unit from sold to available and viewers must see
-- both at once. A claim's status becomes the reason, unless it is of a higher rank already.

-- include: _values
-- include: _gate
-- include: _room
-- include: _pool
-- include: _claims
-- include: _refusals

local META, CLAIMS, APPLIED = KEYS[1], KEYS[2], KEYS[3]
local ROOM = {state = KEYS[4], room = KEYS[5], events = KEYS[6], bus = KEYS[7]}
local POOLS_FROM = 8
local FIELDS = 10 -- of one give in ARGV 2

local pool_ids, gives = cmsgpack.unpack(ARGV[1]), cmsgpack.unpack(ARGV[2])
local rows = cmsgpack.unpack(ARGV[3])
local count = #gives / FIELDS
local marks, moved, facts, flags = {}, {}, {}, {}

local function check_shape()
  if not is_whole(count, 0, LIMIT.GIVE_BATCH_MAX) then error('BADBATCH gives') end
  if #KEYS ~= POOLS_FROM - 1 + 2 * #pool_ids then error('BADBATCH pools') end
  for i = 1, count do
    if not is_whole(gives[FIELDS * (i - 1) + 3], 1, WHOLE_MAX) then error('BADBATCH units') end
  end
end

local function column(number)
  local values = {}
  for i = 1, count do values[i] = gives[FIELDS * (i - 1) + number] end
  return values
end

local function fetch(key, fields)
  return fields[1] and redis.call('HMGET', key, unpack(fields)) or {}
end

local function load_pools()
  local pools = {}
  for index = 1, #pool_ids do
    local at = POOLS_FROM + 2 * (index - 1)
    local pool = read_pool(KEYS[at], pool_ids[index], {'rv', 'r', 'd'})
    if pool then
      pool.buyers, pool.asking, pool.was_empty = KEYS[at + 1], {}, pool.a == 0
    end
    pools[index] = pool or false
  end
  return pools
end

-- Units that count against the buyers whose count will fall: one HMGET for each pool.
local function load_buyers(pools)
  for i = 1, count do
    local at = FIELDS * (i - 1)
    local pool, buyer, forgiven = pools[gives[at + 2]], gives[at + 5], gives[at + 6]
    if pool and forgiven == 1 and buyer ~= '' then pool.asking[#pool.asking + 1] = buyer end
  end
  for _, pool in ipairs(pools) do
    if pool then
      local units = fetch(pool.buyers, pool.asking)
      pool.units = {}
      for i, buyer in ipairs(pool.asking) do
        pool.units[buyer] = whole(units[i], 'buyer units', 0)
      end
    end
  end
end

local function move_counters(pools)
  for at = 1, #rows, 5 do
    local pool = pools[rows[at]]
    if pool and rows[at + 4] > whole(pool.rv, 'pool rv') then
      pool.r, pool.s, pool.d, pool.rv = unpack(rows, at + 1, at + 4)
      pool.touched = true
    end
  end
end

-- The claim's new state: for the claims hash, and as a fact for whoever serves the buyer. It may
-- not have been told the order's confirmation.
local function move_claim(state, buyer, field, reason, text, order_id, pay_by)
  state[1] = reason
  if order_id > 0 then state[8], state[9] = order_id, pay_by end
  moved[#moved + 1] = field
  moved[#moved + 1] = cmsgpack.pack(state)
  facts[#facts + 1] = {buyer, {
    claim_id = text,
    status = reason,
    sale = state[2],
    quantity = state[3],
    price = state[4],
    price_version = state[5],
    epoch = state[6],
    seq = state[7],
    order_id = state[8],
    pay_by = state[9],
  }}
end

-- `states`: field -> the claim's state, unpacked, as the gives before this one left it.
local function give_one(pool, at, states)
  local give_id, _, units, reason, buyer, forgiven, field, text, order_id, pay_by =
    unpack(gives, at + 1, at + FIELDS)
  pool.a, pool.touched = pool.a + units, true
  if reason == 'restock' then
    pool.n, pool.restocked = pool.n + units, true
  elseif pool.units[buyer] and forgiven == 1 then
    pool.units[buyer] = math.max(0, pool.units[buyer] - units)
  end
  local state = states[field]
  if state and may_follow(state[1], reason) then
    move_claim(state, buyer, field, reason, text, order_id, pay_by)
  end
  marks[#marks + 1] = give_id
  marks[#marks + 1] = pool.v + 1 -- the version that write_pool makes of it
end

local function load_claims()
  local fields, states = column(7), {}
  for i, packed in ipairs(fetch(CLAIMS, fields)) do
    if packed and not is_refusal(packed) then states[fields[i]] = cmsgpack.unpack(packed) end
  end
  return states
end

local function give_all(pools, applied, states)
  local seen = {}
  for i = 1, count do
    local at = FIELDS * (i - 1)
    local give_id, pool = gives[at + 1], pools[gives[at + 2]]
    if applied[i] or seen[give_id] then
      flags[i] = 1
    elseif pool then
      give_one(pool, at, states)
      seen[give_id], flags[i] = true, 1
    else
      flags[i] = 0
    end
  end
end

local function write_pool(pool)
  pool.v = pool.v + 1
  redis.call('HSET', pool.key, 'a', pool.a, 'n', pool.n, 'v', pool.v,
    'r', pool.r, 's', pool.s, 'd', pool.d, 'rv', pool.rv)
  local flat = {}
  for buyer, units in pairs(pool.units) do
    flat[#flat + 1] = buyer
    flat[#flat + 1] = units
  end
  if flat[1] then redis.call('HSET', pool.buyers, unpack(flat)) end
end

local function tell_viewers(pool, epoch, now)
  publish_stock(ROOM, pool, epoch, pool.restocked or (pool.was_empty and pool.a > 0))
  if pool.restocked then publish_sale_phase(ROOM, now, pool.id, 'restocked') end
end

check_shape()
expect('hash', META, CLAIMS, APPLIED, unpack(KEYS, POOLS_FROM))
check_room(ROOM)
local epoch, gate = read_gate(META)
if gate == 'rebuilding' then return {CODE.stock_rebuilding, {}} end
local now = now_in_ms()
local pools = load_pools()
load_buyers(pools)
move_counters(pools)
give_all(pools, fetch(APPLIED, column(1)), load_claims())
read_room(ROOM, now)

if marks[1] then redis.call('HSET', APPLIED, unpack(marks)) end
if moved[1] then redis.call('HSET', CLAIMS, unpack(moved)) end
for _, pool in ipairs(pools) do
  if pool and pool.touched then
    write_pool(pool)
    tell_viewers(pool, epoch, now)
  end
end
if facts[1] then redis.call('SPUBLISH', ROOM.bus, cmsgpack.pack({'o', facts})) end
return {0, flags}
