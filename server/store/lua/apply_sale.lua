-- Bring a pool's terms up to a revision of the sale's row; make the pool the first time.
--
-- KEYS    1 meta  2 pool  3 state  4 room  5 events  6 bus channel
-- ARGV    1 pool id  2 revision  3 '1' when the pool may be made  4 units, only for making it
--         5 msgpack map of terms: p pv lim o c st pay sku prod lp cur (see _pool.lua)
-- Returns 'applied' (now or before), 'stale' (a newer revision is in force), 'missing', or
--         'rebuilding': whoever rebuilds the stock writes the pools
-- Errors  CORRUPT; nothing was written.
--
-- Idempotent. Stock is never touched here except at the making: units come and go by claims,
-- takes and gives. A closed pool stays closed, whatever an older row says.

-- include: _values
-- include: _gate
-- include: _room
-- include: _pool
-- include: _sale

local META, POOL = KEYS[1], KEYS[2]
local ROOM = {state = KEYS[3], room = KEYS[4], events = KEYS[5], bus = KEYS[6]}

local pool_id, revision = whole(ARGV[1], 'pool id'), whole(ARGV[2], 'revision')
local terms = cmsgpack.unpack(ARGV[5])

-- What the change is called, nil when viewers need no event for it.
local function what_changed(old)
  if not old or old.st ~= terms.st then
    return terms.st == 'open' and 'opening' or terms.st
  end
  if whole(old.pv, 'price version') ~= terms.pv then return 'price_changed' end
end

local function new_pool()
  local units = whole(ARGV[4], 'units')
  redis.call('HSET', POOL, 'a', units, 'n', units, 'q', 0, 's', 0, 'r', 0, 'd', 0, 'rv', 0, 'v', 0)
  return {key = POOL, id = pool_id, a = units, n = units, q = 0, s = 0, v = 0}
end

local function write_terms(pool)
  pool.v = pool.v + 1
  local pairs_of = {'rev', revision, 'v', pool.v}
  for _, name in ipairs(SALE_FIELDS) do
    pool[name] = terms[name]
    pairs_of[#pairs_of + 1] = name
    pairs_of[#pairs_of + 1] = terms[name]
  end
  redis.call('HSET', POOL, unpack(pairs_of))
end

expect('hash', META, POOL)
check_room(ROOM)
local epoch, gate = read_gate(META)
if not epoch then return 'missing' end
if gate == 'rebuilding' then return 'rebuilding' end
local old = read_pool(POOL, pool_id, {'rev', 'st', 'pv'})
if not old and ARGV[3] ~= '1' then return 'missing' end
local in_force = old and whole(old.rev, 'revision') or -1
if in_force >= revision then return in_force == revision and 'applied' or 'stale' end
if old and old.st == 'closed' then terms.st = 'closed' end
for _, name in ipairs(SALE_FIELDS) do
  if terms[name] == nil then error('BADTERMS ' .. name) end
end

local now, what = now_in_ms(), what_changed(old)
read_room(ROOM, now)
local pool = old or new_pool()
write_terms(pool)
publish_state(ROOM, string.format('sale:%.0f', pool_id), sale_value(pool, epoch), what ~= nil)
publish_stock(ROOM, pool, epoch, not old) -- the stock that viewers see has the pool's version
if what then publish_sale_phase(ROOM, now, pool_id, what) end
return 'applied'
