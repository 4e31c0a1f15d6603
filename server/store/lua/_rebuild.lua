-- Who may rebuild. Include _values and _gate first.

-- Whether `rebuild` (which opens `epoch`) has the show now, on the process where it began: not
-- after another rebuild took over, and not after Redis was restarted or flushed meanwhile.
local function is_current(key, epoch, rebuild)
  local meta = redis.call('HMGET', key, 'epoch', 'gate', 'rebuild', 'run')
  return meta[1] == epoch and meta[2] == 'rebuilding' and meta[3] == rebuild
    and meta[4] == run_id()
end
