-- Who consumes a show's order stream: compare and set.
--
-- KEYS    1 lease
-- ARGV    1 acquire | renew | release  2 owner  3 ms the lease lasts
-- Returns 1 when it was done, else 0
-- Errors  WRONGTYPE; nothing was written.

local holder = redis.call('GET', KEYS[1])
local is_mine = holder == ARGV[2]
if not (is_mine or ARGV[1] == 'acquire' and not holder) then return 0 end
if ARGV[1] == 'release' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
