-- Stop all selling in a show until its stock has been reconciled.
--
-- KEYS    1 meta
-- Returns 1 when the gate was closed by this call, 0 when it was closed before or there is no show
-- Errors  WRONGTYPE; nothing was written.
--
-- Idempotent. apply_show leaves the gate as it is: whoever rebuilds the stock opens it.

local gate = redis.call('HGET', KEYS[1], 'gate')
if not gate or gate == 'rebuilding' then return 0 end
redis.call('HSET', KEYS[1], 'gate', 'rebuilding')
return 1
