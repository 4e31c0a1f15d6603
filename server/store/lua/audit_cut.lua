-- One instant of a show's stock, for the books to be compared with. Writes nothing.
--
-- KEYS    1 meta  2 orders  3 state, then the hashes of pools
-- ARGV    1 msgpack: pool ids, in the order of KEYS
--         2 id of the last entry of the order stream that was read before this call
-- Returns {now ms, stock epoch, gate, same run, pools, entries}; same run is 1 on the process the
--         epoch was opened on; a pool is its flat hash (empty: not there), an entry is {id,
--         fields}. The string 'more' when Redis knows of pools that were not asked for: ask again
--         with them. nil when there is no such show
-- Errors  CORRUPT, WRONGTYPE

-- include: _values
-- include: _gate

local POOLS_FROM = 4

local asked = {}
for _, id in ipairs(cmsgpack.unpack(ARGV[1])) do asked[string.format('stock:%.0f', id)] = true end
for _, key in ipairs(redis.call('HKEYS', KEYS[3])) do
  if string.sub(key, 1, 6) == 'stock:' and not asked[key] then return 'more' end
end
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'gate', 'run')
if not meta[1] then return nil end
local pools = {}
for i = POOLS_FROM, #KEYS do pools[#pools + 1] = redis.call('HGETALL', KEYS[i]) end
return {
  now_in_ms(), meta[1], meta[2] or '', meta[3] == run_id() and 1 or 0, pools,
  redis.call('XRANGE', KEYS[2], '(' .. ARGV[2], '+'),
}
