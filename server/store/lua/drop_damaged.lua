-- Remove the keys of a show that have the wrong type, before its stock is rebuilt: whatever is in
-- them is none of ours, and every script that meets one refuses to work.
--
-- KEYS    those of _damage, then of every pool its hash and its buyers
-- ARGV    1 id of the rebuild
-- Returns 1, or 0 when another rebuild has the show; nothing was changed then
-- Errors  WRONGTYPE of meta, which close_gate has seen to. Idempotent.

-- include: _values
-- include: _damage

local meta = redis.call('HMGET', KEYS[1], 'gate', 'rebuild')
if meta[1] ~= 'rebuilding' or meta[2] ~= ARGV[1] then return 0 end
for i, key in ipairs(KEYS) do
  if wrong_type(i) then redis.call('UNLINK', key) end
end
return 1
