-- Redis' cmsgpack for a Lua that has none: the old spec without bin and ext types, array or map by
-- the keys 1..n, whole numbers as integers. Returns a table with pack(...) and unpack(text).

local byte, char, floor, sub = string.byte, string.char, math.floor, string.sub
local NESTING_MAX = 16

-- `n` as `size` bytes, big endian; negative ones in two's complement.
local function bytes_of(n, size)
  local out = {}
  for i = size, 1, -1 do
    out[i] = char(n % 256)
    n = floor(n / 256)
  end
  return table.concat(out)
end

local function pack_integer(n)
  if n >= 0 then
    if n <= 127 then return char(n) end
    if n <= 0xff then return '\204' .. char(n) end
    if n <= 0xffff then return '\205' .. bytes_of(n, 2) end
    if n <= 0xffffffff then return '\206' .. bytes_of(n, 4) end
    return '\207' .. bytes_of(n, 8)
  end
  if n >= -32 then return char(256 + n) end
  if n >= -128 then return '\208' .. bytes_of(n, 1) end
  if n >= -32768 then return '\209' .. bytes_of(n, 2) end
  if n >= -2147483648 then return '\210' .. bytes_of(n, 4) end
  return '\211' .. bytes_of(n, 8)
end

local function pack_number(n)
  if n % 1 == 0 and n >= -2 ^ 63 and n < 2 ^ 63 then return pack_integer(n) end
  return pack_double(n) -- from Python
end

local function pack_string(text)
  local n = #text
  if n < 32 then return char(0xa0 + n) .. text end
  if n <= 0xff then return '\217' .. char(n) .. text end
  if n <= 0xffff then return '\218' .. bytes_of(n, 2) .. text end
  return '\219' .. bytes_of(n, 4) .. text
end

local function header(n, fixed, two, four)
  if n <= 15 then return char(fixed + n) end
  if n <= 0xffff then return two .. bytes_of(n, 2) end
  return four .. bytes_of(n, 4)
end

-- Length of a table whose keys are exactly 1..n, else nil, and the number of its keys.
local function array_length(t)
  local count, most = 0, 0
  local is_array = true
  for key in pairs(t) do
    count = count + 1
    if type(key) ~= 'number' or key <= 0 or key % 1 ~= 0 then
      is_array = false
    elseif key > most then
      most = key
    end
  end
  return is_array and most == count and count or nil, count
end

local pack_value

local function pack_table(t, depth)
  local length, count = array_length(t)
  local parts = {}
  if length then
    parts[1] = header(length, 0x90, '\220', '\221')
    for i = 1, length do parts[i + 1] = pack_value(t[i], depth) end
  else
    parts[1] = header(count, 0x80, '\222', '\223')
    for key, value in pairs(t) do
      parts[#parts + 1] = pack_value(key, depth)
      parts[#parts + 1] = pack_value(value, depth)
    end
  end
  return table.concat(parts)
end

function pack_value(value, depth)
  local kind = type(value)
  if kind == 'number' then return pack_number(value) end
  if kind == 'string' then return pack_string(value) end
  if kind == 'boolean' then return value and '\195' or '\194' end
  if kind == 'table' and depth < NESTING_MAX then return pack_table(value, depth + 1) end
  return '\192'
end

local function pack(...)
  local parts = {}
  for i = 1, select('#', ...) do parts[i] = pack_value((select(i, ...)), 0) end
  return table.concat(parts)
end

-- --- Unpacking: each reader takes the text and a position, and returns a value and the next one --

local function unsigned(text, at, size)
  if at + size - 1 > #text then error('Missing bytes in input.') end
  local n = 0
  for i = at, at + size - 1 do n = n * 256 + byte(text, i) end
  return n, at + size
end

local function signed(text, at, size)
  local n, next_at = unsigned(text, at, size)
  local half = 2 ^ (8 * size - 1)
  return n >= half and n - 2 * half or n, next_at
end

local function raw(text, at, length)
  if at + length - 1 > #text then error('Missing bytes in input.') end
  return sub(text, at, at + length - 1), at + length
end

local read

local function array(text, at, length)
  local t = {}
  for i = 1, length do t[i], at = read(text, at) end
  return t, at
end

local function map(text, at, length)
  local t = {}
  for _ = 1, length do
    local key, value
    key, at = read(text, at)
    value, at = read(text, at)
    t[key] = value
  end
  return t, at
end

local function sized(reader, size)
  return function(text, at)
    local length, next_at = unsigned(text, at, size)
    return reader(text, next_at, length)
  end
end

local function number(reader, size)
  return function(text, at) return reader(text, at, size) end
end

local function constant(value)
  return function(_, at) return value, at end
end

local function double(size)
  return function(text, at)
    local packed, next_at = raw(text, at, size)
    return unpack_double(packed), next_at -- from Python
  end
end

local READERS = {
  [0xc0] = constant(nil), [0xc2] = constant(false), [0xc3] = constant(true),
  [0xca] = double(4), [0xcb] = double(8),
  [0xcc] = number(unsigned, 1), [0xcd] = number(unsigned, 2),
  [0xce] = number(unsigned, 4), [0xcf] = number(unsigned, 8),
  [0xd0] = number(signed, 1), [0xd1] = number(signed, 2),
  [0xd2] = number(signed, 4), [0xd3] = number(signed, 8),
  [0xd9] = sized(raw, 1), [0xda] = sized(raw, 2), [0xdb] = sized(raw, 4),
  [0xdc] = sized(array, 2), [0xdd] = sized(array, 4),
  [0xde] = sized(map, 2), [0xdf] = sized(map, 4),
}

function read(text, at)
  local code = byte(text, at)
  if not code then error('Missing bytes in input.') end
  at = at + 1
  if code <= 0x7f then return code, at end
  if code >= 0xe0 then return code - 256, at end
  if code >= 0xa0 and code <= 0xbf then return raw(text, at, code - 0xa0) end
  if code >= 0x90 and code <= 0x9f then return array(text, at, code - 0x90) end
  if code >= 0x80 and code <= 0x8f then return map(text, at, code - 0x80) end
  local reader = READERS[code]
  if not reader then error('Bad data format in input.') end
  return reader(text, at)
end

local function unpack_all(text)
  if type(text) ~= 'string' then error('bad argument #1 to unpack') end
  local values, count, at = {}, 0, 1
  while at <= #text do
    count = count + 1
    values[count], at = read(text, at)
  end
  return unpack(values, 1, count)
end

return {pack = pack, unpack = unpack_all}
