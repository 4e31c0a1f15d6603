-- Write some fields of one hash of a show that is being rebuilt: claims, applied or buyers.
--
-- KEYS    1 meta  2 the hash
-- ARGV    1 stock epoch  2 id of the rebuild, then fields and values
-- Returns 1, or 0 when another rebuild has the show; nothing was changed then
-- Errors  WRONGTYPE; nothing was written. Idempotent.

-- include: _values
-- include: _gate
-- include: _rebuild

if not is_current(KEYS[1], ARGV[1], ARGV[2]) then return 0 end
redis.call('HSET', KEYS[2], unpack(ARGV, 3))
return 1
