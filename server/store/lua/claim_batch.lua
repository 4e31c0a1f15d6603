-- Decide many claims at once: this is where stock is decremented.
--
-- KEYS    1 meta  2 claims  3 orders  4 state  5 room  6 events  7 bus channel  8 refusals, then
--         for every pool the batch names, from 9 on: its hash and its buyers
-- ARGV    1 id of the hub  2 stock epoch the hub believes in
--         3 msgpack: pool ids, in the order of KEYS
--         4 msgpack, six columns with one element per claim: fields of the claims hash (buyer,
--           NUL, 16 bytes of claim id), buyers, numbers of the pool in ARGV 3 (from 1),
--           quantities, price versions, attempts (an empty column: all are 0)
-- Returns msgpack [now ms, stock epoch or 0, codes, extras, levels]
--         codes   per claim: 0 accepted, 1 accepted before, else a code of server/errors.py
--         extras  per claim: its seq (code 0), its packed state (code 1), else 0
--         levels  flat, per pool: available (-1: no such pool), version, price, price version
-- Errors  CORRUPT (a key or number is not what it must be), BADBATCH; nothing was written.
--
-- The same claim id always gets the same accepted answer: an accepted claim is remembered and
-- answered before any rule is looked at, also within one batch.
--
-- A refusal of the newest attempt is final. That of attempt 0 is so by itself: nothing else was
-- sent. That of a repeat is remembered, because an earlier sending may still be on its way (in a
-- frozen hub, say) and arrive when there are units again; it is refused then with the same code. A
-- later attempt is decided anew. stock_rebuilding is no decision and not remembered: the same
-- attempt comes again, from a hub that learned the epoch by it or from the buyer. Of a show's
-- refusals the newest REFUSALS_KEPT_MAX are kept, so that nobody can fill the memory with them.
--
-- Cost: the number of calls to Redis depends on the pools and not on the claims. All reading and
-- checking comes before the first write. The writes are ordered so that being cut short could
-- only strand units, never sell them twice: refusals, which take none, then stock, order stream,
-- claims, buyers, and the news.

-- include: _values
-- include: _gate
-- include: _room
-- include: _pool
-- include: _refusals

local META, CLAIMS, ORDERS = KEYS[1], KEYS[2], KEYS[3]
local ROOM = {state = KEYS[4], room = KEYS[5], events = KEYS[6], bus = KEYS[7]}
local REFUSALS = KEYS[8]
local POOLS_FROM = 9
local ID_BYTES = 16
local TERMS = {'p', 'pv', 'lim', 'o', 'c', 'st'}
local GATE_REFUSAL = {
  scheduled = CODE.show_not_live,
  paused = CODE.show_paused,
  ended = CODE.show_ended,
}

local hub = ARGV[1]
local pool_ids = cmsgpack.unpack(ARGV[3])
local fields, buyers, numbers, quantities, price_versions, attempts =
  unpack(cmsgpack.unpack(ARGV[4]))
local count = #fields
local now, epoch, gate
local pack, sub = cmsgpack.pack, string.sub -- many calls: locals are cheaper than globals
local packed_quantities = {} -- most claims of a batch have the same few

-- --- Reading ---------------------------------------------------------------------------------

local function check_shape()
  if count < 1 or count > LIMIT.CLAIM_BATCH_MAX then error('BADBATCH claims') end
  for _, column in ipairs({buyers, numbers, quantities, price_versions}) do
    if #column ~= count then error('BADBATCH columns') end
  end
  if attempts[1] and #attempts ~= count then error('BADBATCH columns') end
  if #KEYS ~= POOLS_FROM - 1 + 2 * #pool_ids then error('BADBATCH pools') end
end

-- Types of the keys that are written without having been read; reading checks the others.
local function check_types()
  expect('stream', ORDERS)
  check_room(ROOM)
  if attempts[1] then expect('list', REFUSALS) end
end

-- Whether claim `i` is well formed. If not it is answered bad_field by itself: one claim must not
-- spoil the batch.
local function is_claim(i)
  return #buyers[i] > 0 and #fields[i] == #buyers[i] + 1 + ID_BYTES
    and is_whole(numbers[i], 1, #pool_ids)
    and is_whole(quantities[i], 1, LIMIT.CLAIM_QUANTITY_MAX)
    and is_whole(price_versions[i], 1, WHOLE_MAX)
    and (not attempts[i] or is_whole(attempts[i], 0, LIMIT.ATTEMPT_MAX))
end

-- Why nobody may claim from this pool now, whoever they are; nil when it sells.
local function refusal_of(pool)
  if gate ~= 'open' then return GATE_REFUSAL[gate] or CODE.stock_rebuilding end
  if tonumber(ARGV[2]) ~= epoch then return CODE.stock_rebuilding end
  if not pool.key then return CODE.unknown_sale end
  if pool.st ~= 'open' and pool.st ~= 'scheduled' then return CODE.sale_closed end
  if pool.o == 0 or now < pool.o then return CODE.sale_not_open end
  if now >= pool.c then return CODE.sale_closed end
end

local function load_pool(number)
  local at = POOLS_FROM + 2 * (number - 1)
  local pool = read_pool(KEYS[at], pool_ids[number], TERMS) or {a = -1, v = 0, p = 0, pv = 0}
  if pool.key then
    for _, name in ipairs({'p', 'pv', 'lim', 'o', 'c'}) do pool[name] = whole(pool[name], name) end
    -- What all packed states and takes of this pool have in common (see accept).
    pool.state_head = '\154' .. pack('held', pool.id)
    pool.take_head = '\153' .. pack(0, pool.id)
    pool.terms = pack(pool.p, pool.pv)
  end
  pool.buyers = KEYS[at + 1]
  pool.refusal = refusal_of(pool)
  pool.asking, pool.units, pool.new_units, pool.new_size = {}, {}, {}, 0
  return pool
end

-- Units that the buyers of new claims have already: one HMGET for each pool that sells.
local function load_units(pool)
  if not pool.asking[1] then return end
  local units = redis.call('HMGET', pool.buyers, unpack(pool.asking))
  for i, buyer in ipairs(pool.asking) do
    pool.units[buyer] = units[i] and whole(units[i], 'buyer units') or 0
  end
end

-- The pools named by the batch, with all that is needed to decide; `known` are the claims that
-- were accepted before.
local function load_pools(known)
  local pools = {}
  for number = 1, #pool_ids do pools[number] = load_pool(number) end
  for i = 1, count do
    local pool = pools[numbers[i]]
    if pool and not pool.refusal and not known[i] then
      pool.asking[#pool.asking + 1] = buyers[i]
    end
  end
  for _, pool in ipairs(pools) do load_units(pool) end
  return pools
end

-- What is remembered of refusals leaves `known`: field -> {attempt =, code =}.
local function take_refusals(known)
  local refused = {}
  for i = 1, count do
    local stored = known[i]
    if stored and is_refusal(stored) then
      local _, attempt, code = unpack(cmsgpack.unpack(stored))
      known[i], refused[fields[i]] = false, {attempt = attempt, code = code}
    end
  end
  return refused
end

-- --- Deciding: on Lua tables only, each claim seeing what the ones before it took --------------

-- Code of an already accepted claim: the same answer for the same question.
local function code_of_known(stored, i)
  local state = cmsgpack.unpack(stored)
  local same = state[2] == pool_ids[numbers[i]]
    and state[3] == quantities[i]
    and state[5] == price_versions[i]
  return same and 1 or CODE.claim_conflict
end

-- Code of a sending that is not later than the one that was refused; nil of a later one.
local function code_of_late(refusal, i)
  if (attempts[i] or 0) <= refusal.attempt then return refusal.code end
end

-- Code of a new claim; 0 when it is to be accepted.
local function code_of_new(pool, i)
  if pool.refusal then return pool.refusal end
  if price_versions[i] ~= pool.pv then return CODE.price_changed end
  if pool.units[buyers[i]] + quantities[i] > pool.lim then return CODE.limit_reached end
  if pool.a == 0 then return CODE.sold_out end
  if quantities[i] > pool.a then return CODE.out_of_stock end
  return 0
end

-- Packed takes; fields and values for the claims hash. `accepted`: how many takes. Counted, because
-- `#` searches for the end of a list each time.
local takes, new_claims, accepted = {}, {}, 0

-- Take the units in the tables; the packed state of the claim and its seq.
--   state  [status, pool, quantity, price, price version, epoch, seq, order id, pay by, at]
--   take   [kind, pool, seq, buyer, claim id, quantity, price, price version, at]
-- Both are put together from packed parts, which costs half of packing them whole.
local function accept(pool, i, packed_epoch, packed_now)
  local buyer, quantity = buyers[i], quantities[i]
  local units = pool.units[buyer] + quantity
  pool.q, pool.a, pool.units[buyer] = pool.q + 1, pool.a - quantity, units
  local size, field = pool.new_size, fields[i]
  pool.new_units[size + 1], pool.new_units[size + 2], pool.new_size = buyer, units, size + 2
  -- Of a buyer's units the last ones count.
  local packed_seq = pack(pool.q)
  local packed_quantity = packed_quantities[quantity] or pack(quantity)
  packed_quantities[quantity] = packed_quantity
  local terms = packed_quantity .. pool.terms
  local state = pool.state_head .. terms .. packed_epoch .. packed_seq .. '\0\0' .. packed_now
  accepted = accepted + 1
  takes[accepted] = pool.take_head .. packed_seq .. pack(buyer)
    .. '\176' .. sub(field, -ID_BYTES) .. terms .. packed_now
  new_claims[2 * accepted - 1], new_claims[2 * accepted] = field, state
  return state, pool.q
end

-- Fields and values for the claims hash; fields that are refused for the first time.
local new_refusals, first_refused = {}, {}

-- Remember the refusal of a repeat, unless a later one was refused before.
local function refuse(refused, i, code)
  local field, attempt = fields[i], attempts[i]
  local before = refused[field]
  if attempt <= (before and before.attempt or 0) or code == CODE.stock_rebuilding then return end
  refused[field] = {attempt = attempt, code = code}
  new_refusals[#new_refusals + 1] = field
  new_refusals[#new_refusals + 1] = pack({'refused', attempt, code})
  if not before then first_refused[#first_refused + 1] = field end
end

local function decide_all(pools, known, refused)
  local codes, extras, fresh = {}, {}, {} -- fresh: accepted by this very batch, field -> state
  local packed_epoch, packed_now = pack(epoch), pack(now)
  for i = 1, count do
    local code, extra = CODE.bad_field, 0
    if is_claim(i) then
      local stored, pool = known[i] or fresh[fields[i]], pools[numbers[i]]
      if stored then
        code = code_of_known(stored, i)
        if code == 1 then extra = stored end
      else
        local refusal = refused[fields[i]]
        code = refusal and code_of_late(refusal, i) or code_of_new(pool, i)
        if code == 0 then
          fresh[fields[i]], extra = accept(pool, i, packed_epoch, packed_now)
        elseif attempts[i] then
          refuse(refused, i, code)
        end
      end
    end
    codes[i], extras[i] = code, extra
  end
  return codes, extras
end

-- --- Writing ---------------------------------------------------------------------------------

-- The oldest refusals, `surplus` of them; a claim that was accepted after its refusal stays.
local function forget_refusals(surplus)
  local oldest = redis.call('LPOP', REFUSALS, math.min(surplus, LIMIT.CLAIM_BATCH_MAX))
  local gone = {}
  for i, stored in ipairs(redis.call('HMGET', CLAIMS, unpack(oldest))) do
    if stored and is_refusal(stored) then gone[#gone + 1] = oldest[i] end
  end
  if gone[1] then redis.call('HDEL', CLAIMS, unpack(gone)) end
end

local function write_refusals()
  redis.call('HSET', CLAIMS, unpack(new_refusals))
  if not first_refused[1] then return end
  local surplus = redis.call('RPUSH', REFUSALS, unpack(first_refused)) - LIMIT.REFUSALS_KEPT_MAX
  if surplus > 0 then forget_refusals(surplus) end
end

local function write_stock(pool)
  pool.v = pool.v + 1
  redis.call('HSET', pool.key, 'a', pool.a, 'q', pool.q, 'v', pool.v)
end

local function write_orders()
  redis.call('XADD', ORDERS, '*', 'e', epoch, 'h', hub,
    't', array_header(accepted) .. table.concat(takes))
end

local function write_all(touched)
  for _, pool in ipairs(touched) do write_stock(pool) end
  write_orders()
  redis.call('HSET', CLAIMS, unpack(new_claims))
  for _, pool in ipairs(touched) do redis.call('HSET', pool.buyers, unpack(pool.new_units)) end
end

local function tell_viewers(touched)
  for _, pool in ipairs(touched) do
    publish_stock(ROOM, pool, epoch, pool.a == 0)
    if pool.a == 0 then publish_sale_phase(ROOM, now, pool.id, 'sold_out') end
  end
end

-- --- The batch -------------------------------------------------------------------------------

-- Pools that lost units; loads the room's numbers when one of them sold out.
local function touched_pools(pools)
  local touched, sold_out = {}, false
  for _, pool in ipairs(pools) do
    if pool.new_units[1] then
      touched[#touched + 1] = pool
      sold_out = sold_out or pool.a == 0
    end
  end
  if sold_out then read_room(ROOM, now) end
  return touched
end

local function levels_of(pools)
  local levels = {}
  for _, pool in ipairs(pools) do
    for _, value in ipairs({pool.a, pool.v, pool.p, pool.pv}) do levels[#levels + 1] = value end
  end
  return levels
end

local function refuse_all(code)
  local codes, extras = {}, {}
  for i = 1, count do codes[i], extras[i] = code, 0 end
  return pack({now, 0, codes, extras, {}})
end

check_shape()
check_types()
now = now_in_ms()
epoch, gate = read_gate(META)
if not epoch then return refuse_all(CODE.stock_rebuilding) end

local known = redis.call('HMGET', CLAIMS, unpack(fields))
local refused = take_refusals(known)
local pools = load_pools(known)
local codes, extras = decide_all(pools, known, refused)
local touched = takes[1] and touched_pools(pools)
if new_refusals[1] then write_refusals() end
if touched then
  write_all(touched)
  tell_viewers(touched)
end
return pack({now, epoch, codes, extras, levels_of(pools)})
