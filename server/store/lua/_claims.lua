-- States of a claim in the claims hash: an array of ten, packed, that starts with the status. Every
-- step of an order goes up in rank (server/domain/order.py), so whoever hears of steps late, twice
-- or in the wrong order keeps the highest. released_by_incident follows `held` only.

local RANK = {
  held = 0, confirmed = 1, released_by_incident = 1, expired = 2, cancelled = 2, paid = 3,
  fulfilled = 4, refunded = 4,
}

-- Status of a packed state: a short string behind the array's one byte.
local function status_of(packed)
  return string.sub(packed, 3, string.byte(packed, 2) - 158)
end

-- Whether a claim with status `known` may become `status`.
local function may_follow(known, status)
  local from, to = RANK[known], RANK[status]
  if not (from and to) then error('CORRUPT claim status') end
  return to > from
end
