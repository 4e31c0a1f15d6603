-- Tell everybody what PostgreSQL committed: claims, counters, then acknowledge the entries.
--
-- KEYS    1 meta  2 claims  3 orders  4 state  5 bus channel, then the pools' hashes, then the
--         channels of hubs
-- ARGV    1 msgpack, flat, per pool: pool id, reserved, sold, dead, version of its row
--         2 msgpack, four columns with one element per claim: fields in claims, new packed states,
--           packed [buyer, state] for the fact, numbers of the hub's channel (from 1; 0: none)
--         3 consumer group  4 msgpack: ids of entries to acknowledge and delete
-- Returns number of claims whose status is now (or was already) the given one;
--         -1 while the stock is being rebuilt, nothing changed
-- Errors  CORRUPT, BADBATCH; nothing was written.
--
-- Idempotent. A claim moves only up in rank (or from nothing, after a loss): a late repeat cannot
-- turn a paid order back into a confirmed one. Counters move only to a newer version of the row.
-- Repeating publishes again, because the first time may not have reached the hub.

-- include: _values
-- include: _gate
-- include: _room
-- include: _pool
-- include: _claims
-- include: _refusals

local META, CLAIMS, ORDERS = KEYS[1], KEYS[2], KEYS[3]
local ROOM = {state = KEYS[4], bus = KEYS[5]}
local CHANNELS_FROM = 5 -- the pools and the hubs' channels follow this key
local HELD = '\154\164held' -- how a packed state starts that nothing has happened to since

local rows, entry_ids = cmsgpack.unpack(ARGV[1]), cmsgpack.unpack(ARGV[4])
local fields, states, pairs_of, channels = unpack(cmsgpack.unpack(ARGV[2]))
local pool_count, claim_count = #rows / 5, #fields
local sub = string.sub

local function check_shape()
  if claim_count > LIMIT.CLAIM_BATCH_MAX then error('BADBATCH claims') end
  if not is_whole(pool_count, 0, #KEYS - CHANNELS_FROM) then error('BADBATCH pools') end
  if #entry_ids > LIMIT.CLAIM_BATCH_MAX then error('BADBATCH entries') end
end

-- Pools whose counters in Redis are older than these.
local function outdated_pools()
  local outdated = {}
  for i = 1, pool_count do
    local at = 5 * (i - 1)
    local pool = read_pool(KEYS[CHANNELS_FROM + i], rows[at + 1], {'rv'})
    if pool and rows[at + 5] > whole(pool.rv, 'pool rv') then
      pool.r, pool.s, pool.d, pool.rv = unpack(rows, at + 2, at + 5)
      outdated[#outdated + 1] = pool
    end
  end
  return outdated
end

-- Whether a claim may move on to `state`, and whether it has its status already. A refusal gives
-- way: Redis had lost the claim when it made it.
local function verdict(known, state)
  if not known or sub(known, 1, #HELD) == HELD or is_refusal(known) then return true, false end
  local before, now = status_of(known), status_of(state)
  return may_follow(before, now), before == now
end

-- New fields and values for the claims hash, and by channel the [buyer, state] pairs to publish.
local function movable_claims()
  local moved, facts, size, settled = {}, {}, 0, 0
  local known = claim_count > 0 and redis.call('HMGET', CLAIMS, unpack(fields)) or {}
  for i = 1, claim_count do
    local movable, same = verdict(known[i], states[i])
    if movable then
      moved[size + 1], moved[size + 2], size = fields[i], states[i], size + 2
    end
    if movable or same then
      settled = settled + 1
      local list = facts[channels[i]] or {n = 0}
      list.n, facts[channels[i]] = list.n + 1, list
      list[list.n] = pairs_of[i]
    end
  end
  return moved, facts, settled
end

local function write_pool(pool, epoch)
  pool.v = pool.v + 1
  redis.call('HSET', pool.key, 'r', pool.r, 's', pool.s, 'd', pool.d, 'rv', pool.rv, 'v', pool.v)
  publish_stock(ROOM, pool, epoch, false)
end

local function tell_buyers(facts)
  facts[0] = nil
  for channel, list in pairs(facts) do
    redis.call('SPUBLISH', KEYS[CHANNELS_FROM + pool_count + channel],
      '\146\161o' .. array_header(list.n) .. table.concat(list))
  end
end

check_shape()
expect('hash', META, CLAIMS, ROOM.state)
expect('hash', unpack(KEYS, CHANNELS_FROM + 1, CHANNELS_FROM + pool_count))
expect('stream', ORDERS)
local epoch, gate = read_gate(META)
if gate == 'rebuilding' then return -1 end
local pools = outdated_pools()
local moved, facts, settled = movable_claims()

if moved[1] then redis.call('HSET', CLAIMS, unpack(moved)) end
for _, pool in ipairs(pools) do write_pool(pool, epoch) end
tell_buyers(facts)
if entry_ids[1] then
  redis.call('XACK', ORDERS, ARGV[3], unpack(entry_ids))
  redis.call('XDEL', ORDERS, unpack(entry_ids))
end
return settled
