-- Evidence that comes from now on is too late for this rebuild: it reads what there is.
--
-- KEYS    1 meta
-- ARGV    1 id of the rebuild
-- Returns 1, or 0 when another rebuild has the show; nothing was changed then
-- Errors  WRONGTYPE; nothing was written. Idempotent.
--
-- Evidence taken after the reading would be left for the next rebuild, which would revive claims
-- that were told their end meanwhile.

local meta = redis.call('HMGET', KEYS[1], 'gate', 'rebuild')
if meta[1] ~= 'rebuilding' or meta[2] ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'gathering')
return 1
