-- Stop everything that moves units in a show until its stock has been rebuilt.
--
-- KEYS    1 meta  2 bus channel
-- ARGV    1 id of the rebuild that begins, '' for none yet  2 stock epoch seen, '' for whatever
-- Returns 1 when the gate is closed by this call (for this rebuild), 0 when there is nothing to
--         do: another epoch is in force, it was closed before, or there is no show to halt
-- Errors  none by what is stored
--
-- Idempotent. A show that Redis has lost is closed too when a rebuild begins. Hubs are told, so
-- that they present what they know of claims. apply_show leaves the gate as it is.
--
-- A meta that is no hash, or an epoch that is no number, is none: every script that moves units
-- refuses on it. The rebuild begins by removing it.

-- include: _values

local META, BUS = KEYS[1], KEYS[2]
local rebuild, seen = ARGV[1], ARGV[2]

local kind = redis.call('TYPE', META).ok
local is_damaged = kind ~= 'hash' and kind ~= 'none'
local meta = is_damaged and {} or redis.call('HMGET', META, 'epoch', 'gate')
local is_epoch = is_whole(tonumber(meta[1] or nil), 1, WHOLE_MAX)
local epoch, gate = is_epoch and string.format('%.0f', meta[1]) or '', meta[2]
if seen ~= '' and seen ~= epoch and not (seen == '0' and epoch == '') then return 0 end
if rebuild == '' then
  if not gate or gate == 'rebuilding' then return 0 end
  redis.call('HSET', META, 'gate', 'rebuilding')
  return 1
end
if is_damaged then redis.call('UNLINK', META) end
if meta[1] and not is_epoch then redis.call('HDEL', META, 'epoch') end
redis.call('HSET', META, 'gate', 'rebuilding', 'rebuild', rebuild, 'gathering', rebuild)
redis.call('SPUBLISH', BUS, cmsgpack.pack({'r', rebuild}))
return 1
