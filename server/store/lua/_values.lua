-- Numbers, types and time. A stored value that is not what it must be raises an error before the
-- script's first write; Redis would not undo what came before it.

local WHOLE_MAX = 9007199254740991 -- 2^53 - 1: doubles count exactly up to here

-- Whether `n` is an integer from `low` to `high` (NaN, infinity and fractions are not).
local function is_whole(n, low, high)
  return type(n) == 'number' and n >= low and n <= high and n % 1 == 0
end

-- The stored integer `text`, or `default` where there is none.
local function whole(text, what, default)
  if not text then
    if default then return default end
    error('CORRUPT no ' .. what)
  end
  local n = tonumber(text)
  if not is_whole(n, -WHOLE_MAX, WHOLE_MAX) then error('CORRUPT ' .. what .. ' is no integer') end
  return n
end

-- Every key has its type or does not exist.
local function expect(kind, ...)
  for _, key in ipairs({...}) do
    local found = redis.call('TYPE', key).ok
    if found ~= kind and found ~= 'none' then
      error('CORRUPT ' .. key .. ' is a ' .. found .. ', not a ' .. kind)
    end
  end
end

-- Redis time in ms.
local function now_in_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- msgpack header of an array of `n` elements, to be followed by packed elements.
local function array_header(n)
  if n < 16 then return string.char(0x90 + n) end
  return string.char(0xdc, math.floor(n / 256), n % 256)
end
