-- One pool and what viewers see of it. Include _values and _room first.
--
-- Fields of the pool's hash:
--   a   units available            q   seq of the last take in this epoch
--   n   units that belong to it    v   version, raised by every change a viewer could see
--   s   sold   r  reserved   d  dead: absolute values from PostgreSQL, as of
--   rv  the version of its row there
--   p   price, minor units         pv  price version
--   lim units per buyer            st  scheduled | open | closed
--   o   opens at, ms               c   closes at, ms (the window is o <= Redis time < c)
--   rev revision of the sale's row pay pay within, s
--   sku, prod, lp list price, cur currency: for viewers only
-- Held units are n - a - s, so left + held + sold == total holds by construction.

-- The pool's stock, or nil when there is no such pool. `also` names further fields to read.
local function read_pool(key, id, also)
  local fields = redis.call('HMGET', key, 'a', 'q', 'v', 'n', 's', unpack(also or {}))
  if not fields[1] then return nil end
  local pool = {
    key = key,
    id = id,
    a = whole(fields[1], 'pool a'),
    q = whole(fields[2], 'pool q'),
    v = whole(fields[3], 'pool v'),
    n = whole(fields[4], 'pool n'),
    s = whole(fields[5], 'pool s'),
  }
  if pool.a < 0 or pool.q < 0 then error('CORRUPT pool below zero') end
  for i, name in ipairs(also or {}) do pool[name] = fields[5 + i] end
  return pool
end

local function publish_stock(room, pool, epoch, edge)
  publish_state(room, string.format('stock:%.0f', pool.id), {
    epoch = epoch,
    version = pool.v,
    sale = pool.id,
    left = pool.a,
    held = pool.n - pool.a - pool.s,
    sold = pool.s,
    total = pool.n,
  }, edge)
end
