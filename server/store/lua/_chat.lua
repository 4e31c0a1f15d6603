-- The newest danmaku, kept for those who join. Include _values first.

-- Forget `lines`, which are list entries as they are stored, wherever they are in the list.
local function forget_lines(chat, lines)
  for _, line in ipairs(lines) do redis.call('LREM', chat, 0, line) end
end
