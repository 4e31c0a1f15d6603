-- What a hub knows of claims, for the rebuild that is gathering: claims it was told are held, and
-- holds that buyers proved with a receipt.
--
-- KEYS    1 meta  2 evidence  3 presented
-- ARGV    1 id of the rebuild  2 id of the hub when this is all it has, else ''
--         then for each claim its field in claims and packed [epoch, take]
-- Returns 1, or 0 when that rebuild is not gathering; nothing was changed then
-- Errors  WRONGTYPE; nothing was written. Idempotent.

local meta = redis.call('HMGET', KEYS[1], 'gate', 'gathering')
if meta[1] ~= 'rebuilding' or meta[2] ~= ARGV[1] then return 0 end
if #ARGV > 2 then redis.call('HSET', KEYS[2], unpack(ARGV, 3)) end
if ARGV[2] ~= '' then redis.call('SADD', KEYS[3], ARGV[2]) end
return 1
