-- What the order worker looks at to see whether Redis still has a show's stock. Writes nothing.
--
-- KEYS    those of _damage, then of every pool its hash and its buyers
-- ARGV    1 consumer group
-- Returns {stock epoch (0: none), gate, 1 on the process the epoch was opened on, 1 with the
--         consumer group, entries in the order stream, of each pool q (-1: not there, or none), of
--         each rv (-1), what is damaged (texts)}
-- Errors  none by what is stored: that is what is looked for

-- include: _values
-- include: _gate
-- include: _damage

local META, ORDERS, POOLS_FROM = 1, 2, #KINDS + 1
local POOL_NUMBERS = { -- in the order of _pool.lua
  'a', 'q', 'n', 'v', 's', 'r', 'd', 'rv', 'p', 'pv', 'lim', 'o', 'c', 'rev', 'pay', 'sku', 'prod',
  'lp',
}
local POOL_PHASES = {scheduled = true, open = true, closed = true}
local GATES = {scheduled = true, open = true, paused = true, ended = true, rebuilding = true}
local damage, is_wrong = {}, {}

local function note_types()
  for i, key in ipairs(KEYS) do
    local found, wanted = wrong_type(i)
    if found then
      is_wrong[i] = true
      damage[#damage + 1] = key .. ' is a ' .. found .. ', not a ' .. wanted
    end
  end
end

-- Fields of the hash KEYS[i], none when it is no hash.
local function read(i, ...)
  if is_wrong[i] then return {} end
  return redis.call('HMGET', KEYS[i], ...)
end

local function note(i, name, fault)
  damage[#damage + 1] = KEYS[i] .. ': ' .. name .. ' is ' .. fault
end

-- A number that stands in KEYS[i], or `default`. None is below zero but n, where Redis had more units
-- than the books: these rule on it when they enter its takes.
local function number(i, name, text, default)
  local n = tonumber(text or nil)
  if is_whole(n, name == 'n' and -WHOLE_MAX or 0, WHOLE_MAX) then return n end
  if text then note(i, name, is_whole(n, -WHOLE_MAX, -1) and 'below zero' or 'no integer') end
  return default
end

-- q and rv of a pool, -1 of one that is not there. Every number that a script reads is looked at:
-- a pool that lacks one of them would be refused again and again.
local function read_pool(i)
  if is_wrong[i] or redis.call('EXISTS', KEYS[i]) == 0 then return -1, -1 end
  local fields, found = read(i, unpack(POOL_NUMBERS)), {}
  for at, name in ipairs(POOL_NUMBERS) do found[name] = number(i, name, fields[at] or '', -1) end
  local phase = read(i, 'st')[1]
  if not POOL_PHASES[phase] then note(i, 'st', 'no phase') end
  return found.q, found.rv
end

local function has_group()
  if is_wrong[ORDERS] or redis.call('EXISTS', KEYS[ORDERS]) == 0 then return 0 end
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[ORDERS])) do
    for i = 1, #group, 2 do
      if group[i] == 'name' and group[i + 1] == ARGV[1] then return 1 end
    end
  end
  return 0
end

note_types()
local seqs, versions = {}, {}
for i = POOLS_FROM, #KEYS, 2 do
  seqs[#seqs + 1], versions[#versions + 1] = read_pool(i)
end
local meta = read(META, 'epoch', 'gate', 'run', 'rev')
local epoch = number(META, 'epoch', meta[1], 0)
if epoch > 0 and not GATES[meta[2]] then note(META, 'gate', 'none') end
number(META, 'rev', meta[4], 0)
local backlog = is_wrong[ORDERS] and 0 or redis.call('XLEN', KEYS[ORDERS])
return {
  epoch, meta[2] or '', meta[3] == run_id() and 1 or 0, has_group(), backlog, seqs, versions, damage,
}
