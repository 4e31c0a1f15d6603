-- What the order worker looks at to see whether Redis still has a show's stock. Writes nothing.
--
-- KEYS    1 meta  2 orders, then the hashes of pools
-- ARGV    1 consumer group
-- Returns {stock epoch (0: none), gate, 1 on the process the epoch was opened on, 1 with the
--         consumer group, of each pool q (-1: not there), of each rv (-1)}
-- Errors  CORRUPT, WRONGTYPE

-- include: _values
-- include: _gate

local POOLS_FROM = 3

local function has_group()
  if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[2])) do
    for i = 1, #group, 2 do
      if group[i] == 'name' and group[i + 1] == ARGV[1] then return 1 end
    end
  end
  return 0
end

local seqs, versions = {}, {}
for i = POOLS_FROM, #KEYS do
  local fields = redis.call('HMGET', KEYS[i], 'q', 'rv')
  seqs[#seqs + 1] = whole(fields[1], 'pool q', -1)
  versions[#versions + 1] = whole(fields[2], 'pool rv', -1)
end
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'gate', 'run')
return {
  whole(meta[1], 'stock epoch', 0), meta[2] or '', meta[3] == run_id() and 1 or 0, has_group(),
  seqs, versions,
}
