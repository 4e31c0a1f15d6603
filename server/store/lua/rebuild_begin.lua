-- Forget a show's stock, to write it anew under a higher stock epoch.
--
-- KEYS    1 meta  2 claims  3 orders  4 applied  5 evidence  6 presented  7 state  8 refusals,
--         then for every pool its hash and its buyers
-- ARGV    1 stock epoch to open  2 id of the rebuild  3 consumer group  4 the show's phase
--         5 msgpack: pool ids, in the order of KEYS; pools that viewers are shown and that are
--           not among them are gone for good
-- Returns 1, or 0 when another rebuild has the show or Redis is at this epoch or beyond; nothing
--         was changed then
-- Errors  CORRUPT, WRONGTYPE; nothing was written.
--
-- The gate was closed by this rebuild before, so nobody adds to what is forgotten here. What the
-- room has (events, chat, likes) stays. rev goes, so that the show's row is applied again. Refusals
-- of repeats stay too: who was told no must not be sold to by a sending that comes late. They are
-- copied at some 4 µs each.

-- include: _values
-- include: _gate
-- include: _refusals

local META, CLAIMS, ORDERS, STATE, REFUSALS = KEYS[1], KEYS[2], KEYS[3], KEYS[7], KEYS[8]
local POOLS_FROM = 9
local epoch, rebuild = whole(ARGV[1], 'stock epoch'), ARGV[2]

local function forget_unknown_pools()
  local known = {}
  for _, id in ipairs(cmsgpack.unpack(ARGV[5])) do known[string.format('%.0f', id)] = true end
  for _, key in ipairs(redis.call('HKEYS', STATE)) do
    local kind, id = string.match(key, '^(%a+):(%d+)$')
    if (kind == 'stock' or kind == 'sale') and not known[id] then redis.call('HDEL', STATE, key) end
  end
end

-- Flat lists of fields and values for the claims hash, for one HSET each.
local function read_refusals()
  local portions, size = {}, LIMIT.CLAIM_BATCH_MAX
  local fields = redis.call('LRANGE', REFUSALS, 0, -1)
  for start = 1, #fields, size do
    local last, pairs_of = math.min(start + size - 1, #fields), {}
    for i, stored in ipairs(redis.call('HMGET', CLAIMS, unpack(fields, start, last))) do
      if stored and is_refusal(stored) then
        pairs_of[#pairs_of + 1] = fields[start + i - 1]
        pairs_of[#pairs_of + 1] = stored
      end
    end
    if pairs_of[1] then portions[#portions + 1] = pairs_of end
  end
  return portions
end

expect('hash', META, STATE)
local meta = redis.call('HMGET', META, 'epoch', 'gate', 'rebuild')
if meta[2] ~= 'rebuilding' or meta[3] ~= rebuild then return 0 end
if whole(meta[1], 'stock epoch', 0) >= epoch then return 0 end

local refusals = read_refusals()
redis.call('HSET', META, 'epoch', epoch, 'run', run_id())
redis.call('HDEL', META, 'rev')
redis.call('HSETNX', META, 'phase', ARGV[4])
redis.call('UNLINK', CLAIMS, ORDERS, KEYS[4], KEYS[5], KEYS[6], unpack(KEYS, POOLS_FROM))
for _, pairs_of in ipairs(refusals) do redis.call('HSET', CLAIMS, unpack(pairs_of)) end
redis.call('XGROUP', 'CREATE', ORDERS, ARGV[3], '0', 'MKSTREAM')
forget_unknown_pools()
return 1
