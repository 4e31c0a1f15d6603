-- Open the gate of a show whose stock has been rebuilt.
--
-- KEYS    1 meta
-- ARGV    1 stock epoch  2 id of the rebuild
-- Returns 1 (now or in an earlier call), or 0 when another rebuild has the show or Redis is not
--         the process it began on; nothing was changed then
-- Errors  CORRUPT, WRONGTYPE; nothing was written. Idempotent.
--
-- The gate follows the phase that apply_show wrote meanwhile: a pause during the rebuild holds.

-- include: _values
-- include: _gate
-- include: _rebuild

local META = KEYS[1]
local GATE_OF = {scheduled = 'scheduled', live = 'open', paused = 'paused', ended = 'ended'}

if not is_current(META, ARGV[1], ARGV[2]) then
  local meta = redis.call('HMGET', META, 'epoch', 'rebuild', 'run')
  local opened = meta[1] == ARGV[1] and meta[2] == ARGV[2] and meta[3] == run_id()
  return opened and 1 or 0
end
local gate = GATE_OF[redis.call('HGET', META, 'phase')]
if not gate then error('CORRUPT no phase') end
redis.call('HSET', META, 'gate', gate)
return 1
