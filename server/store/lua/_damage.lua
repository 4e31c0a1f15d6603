-- Keys of a show that cannot be what they must be. Include _values first.
--
-- KEYS of the script: those of KINDS in this order, then hashes (store/gate.py names them).

local KINDS = {
  'hash', -- meta
  'stream', -- orders
  'hash', 'hash', 'hash', 'set', -- claims, applied, evidence, presented
  'list', 'hash', 'hash', 'stream', 'list', -- refusals, room, state, events, chat
  'hash', 'hash', 'hash', 'hash', 'string', -- like_batches, presence, people, policy, lease
  'hash', -- counts
}

-- Of KEYS[i]: the type found, and the one it must have; nil when all is well.
local function wrong_type(i)
  local found, wanted = redis.call('TYPE', KEYS[i]).ok, KINDS[i] or 'hash'
  if found ~= 'none' and found ~= wanted then return found, wanted end
end
