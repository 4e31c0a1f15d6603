-- Keep what one hub counted in a show: totals since it started, which only rise.
--
-- KEYS    1 meta  2 counts
-- ARGV    1 hub  2 lines  3 claims  4 seconds that the counts of an ended show are kept
-- Returns 1
-- Errors  CORRUPT; nothing was written.
--
-- Idempotent. A smaller total than is known is older, or of a hub that has forgotten an ended show.
-- The end of a show gives its counts their time to live (apply_show); a report that comes later and
-- makes the key anew gives it here.

-- include: _values

local META, COUNTS = KEYS[1], KEYS[2]

expect('hash', META, COUNTS)
local fields = {ARGV[1] .. ':lines', ARGV[1] .. ':claims'}
local known = redis.call('HMGET', COUNTS, unpack(fields))
local totals = {}
for n, field in ipairs(fields) do
  totals[n] = math.max(whole(known[n], field, 0), whole(ARGV[n + 1], field))
end
for n, field in ipairs(fields) do
  redis.call('HSET', COUNTS, field, string.format('%.0f', totals[n]))
end
if redis.call('HGET', META, 'phase') == 'ended' and redis.call('TTL', COUNTS) < 0 then
  redis.call('EXPIRE', COUNTS, ARGV[4])
end
return 1
