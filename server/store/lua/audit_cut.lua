-- One instant of a show's stock, for the books to be compared with. Writes nothing.
--
-- KEYS    1 meta  2 orders  3 applied  4 state, then the hashes of pools
-- ARGV    1 msgpack: pool ids, in the order of KEYS
-- Returns {now ms, stock epoch, gate, pools, entries, applied ids}; a pool is its flat hash
--         (empty: not there), an entry is {id, fields}. The string 'more' when Redis knows of
--         pools that were not asked for: ask again with them. nil when there is no such show
-- Errors  CORRUPT, WRONGTYPE

-- include: _values

local POOLS_FROM = 5

local asked = {}
for _, id in ipairs(cmsgpack.unpack(ARGV[1])) do asked[string.format('stock:%.0f', id)] = true end
for _, key in ipairs(redis.call('HKEYS', KEYS[4])) do
  if string.sub(key, 1, 6) == 'stock:' and not asked[key] then return 'more' end
end
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'gate')
if not meta[1] then return nil end
local pools = {}
for i = POOLS_FROM, #KEYS do pools[#pools + 1] = redis.call('HGETALL', KEYS[i]) end
return {
  now_in_ms(), meta[1], meta[2] or '', pools,
  redis.call('XRANGE', KEYS[2], '-', '+'), redis.call('HKEYS', KEYS[3]),
}
