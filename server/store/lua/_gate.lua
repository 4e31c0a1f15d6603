-- Whose stock is this, and may it be touched? Include _values first.
--
-- Fields of meta: epoch, gate, run (the Redis process this epoch was opened on), phase, rev,
-- rebuild (id of the rebuild that closed the gate, while it is closed), gathering (the same, while
-- it still takes evidence).
--
-- A Redis that was restarted, restored from a copy or promoted is another process: it may have
-- lost the newest takes, and nothing inside it tells. So every script that moves units asks here,
-- and moves nothing on a process other than the one the epoch was opened on.

-- The id of this Redis process: new after every start, other on every replica.
local function run_id()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end

-- The stock epoch (nil: unknown) and the gate, which is 'rebuilding' wherever units must stay
-- where they are.
local function read_gate(key)
  local meta = redis.call('HMGET', key, 'epoch', 'gate', 'run')
  local epoch = meta[1] and whole(meta[1], 'stock epoch') or nil
  if not epoch or meta[3] ~= run_id() then return epoch, 'rebuilding' end
  return epoch, meta[2] or 'rebuilding'
end
