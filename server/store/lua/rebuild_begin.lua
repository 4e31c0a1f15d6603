-- Forget a show's stock, to write it anew under a higher stock epoch.
--
-- KEYS    1 meta  2 claims  3 orders  4 applied  5 evidence  6 presented  7 state, then for
--         every pool its hash and its buyers
-- ARGV    1 stock epoch to open  2 id of the rebuild  3 consumer group  4 the show's phase
--         5 msgpack: pool ids, in the order of KEYS; pools that viewers are shown and that are
--           not among them are gone for good
-- Returns 1, or 0 when another rebuild has the show or Redis is at this epoch or beyond; nothing
--         was changed then
-- Errors  CORRUPT, WRONGTYPE; nothing was written.
--
-- The gate was closed by this rebuild before, so nobody adds to what is forgotten here. What the
-- room has (events, chat, likes) stays. rev goes, so that the show's row is applied again.

-- include: _values
-- include: _gate

local META, STATE, ORDERS = KEYS[1], KEYS[7], KEYS[3]
local POOLS_FROM = 8
local epoch, rebuild = whole(ARGV[1], 'stock epoch'), ARGV[2]

local function forget_unknown_pools()
  local known = {}
  for _, id in ipairs(cmsgpack.unpack(ARGV[5])) do known[string.format('%.0f', id)] = true end
  for _, key in ipairs(redis.call('HKEYS', STATE)) do
    local kind, id = string.match(key, '^(%a+):(%d+)$')
    if (kind == 'stock' or kind == 'sale') and not known[id] then redis.call('HDEL', STATE, key) end
  end
end

expect('hash', META, STATE)
local meta = redis.call('HMGET', META, 'epoch', 'gate', 'rebuild')
if meta[2] ~= 'rebuilding' or meta[3] ~= rebuild then return 0 end
if whole(meta[1], 'stock epoch', 0) >= epoch then return 0 end

redis.call('HSET', META, 'epoch', epoch, 'run', run_id())
redis.call('HDEL', META, 'rev')
redis.call('HSETNX', META, 'phase', ARGV[4])
redis.call('UNLINK', KEYS[2], ORDERS, KEYS[4], KEYS[5], KEYS[6], unpack(KEYS, POOLS_FROM))
redis.call('XGROUP', 'CREATE', ORDERS, ARGV[3], '0', 'MKSTREAM')
forget_unknown_pools()
return 1
