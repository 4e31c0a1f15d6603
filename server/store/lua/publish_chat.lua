-- Publish the danmaku one hub accepted during one tick and keep the newest for those who join.
--
-- KEYS    1 chat  2 bus channel
-- ARGV    1 the packed fact  2.. the packed lines
-- Returns lines kept
-- Errors  WRONGTYPE from the first call; nothing was written.

if ARGV[2] then
  redis.call('RPUSH', KEYS[1], unpack(ARGV, 2))
  redis.call('LTRIM', KEYS[1], -LIMIT.RECENT_CHAT_MAX, -1)
end
redis.call('SPUBLISH', KEYS[2], ARGV[1])
return redis.call('LLEN', KEYS[1])
