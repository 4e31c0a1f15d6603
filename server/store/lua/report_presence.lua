-- One hub tells who came and who left there since it last told. People are counted, not sockets:
-- a user on several hubs once. Their number is published when it changed.
--
-- KEYS    1 presence  2 people  3 like_batches  4 state  5 room  6 events  7 bus channel
-- ARGV    1 id of the hub  2 number of the report, rising
--         3 number of the report before it, 0 when this one begins to tell of everybody
--         4 connections there that nobody signed in on  5 ms for which the report counts
--         6 '1' when the rest follows at once  7 '1' when hubs whose time is over may be let go
--         8 how many of the users from 9 on came; the others left
-- Returns {1, or 0 when the hub must tell of everybody anew; people watching, all hubs together;
--         1 when people of hubs that are gone are still to be taken out: report again}
-- Errors  CORRUPT; nothing was written.
--
-- Idempotent by its number. `people` has each user once, so its size is the number of users. What a
-- call costs goes by the changes in it, not by the viewers: a hub that is gone, or known otherwise
-- than it knows itself, is taken out of `people` in portions, by whichever hubs report. Hubs that
-- stayed silent for FORGET_MS are forgotten, together with their number of like batches.

-- include: _values
-- include: _room

local PRESENCE, PEOPLE, BATCHES = KEYS[1], KEYS[2], KEYS[3]
local ROOM = {state = KEYS[4], room = KEYS[5], events = KEYS[6], bus = KEYS[7]}
local FIRST_USER = 9
local FORGET_MS = 600000
local WORDS_MAX = 1000 -- of users and hubs in one command: Lua's unpack has ~8,000 stack slots

local hub, number = ARGV[1], whole(ARGV[2], 'report number')
local before = whole(ARGV[3], 'report number')
local anonymous, ttl_ms = whole(ARGV[4], 'connections'), whole(ARGV[5], 'ttl')
local more_follow, may_let_go = ARGV[6] == '1', ARGV[7] == '1'
local came = whole(ARGV[8], 'users who came')

local hubs = {} -- id -> {gone =, number =, anonymous =, users =, expires =, changed =}
local cursor -- of the pass over `people` that takes out the hubs that are gone

local function read_hub(text)
  local state, number, anonymous, users, expires =
    string.match(text, '^(%l+):(%d+):(%d+):(%d+):(%d+)$')
  if not state then return nil end
  return {
    gone = state == 'gone', number = tonumber(number), anonymous = tonumber(anonymous),
    users = tonumber(users), expires = tonumber(expires),
  }
end

-- False when presence and people cannot be of one piece: part of them was lost.
local function read_hubs()
  local is_sound, most, sum = true, 0, 0
  local entries = redis.call('HGETALL', PRESENCE)
  for i = 1, #entries, 2 do
    local entry = read_hub(entries[i + 1])
    is_sound = is_sound and entry ~= nil
    entry = entry or {gone = true, number = 0, anonymous = 0, users = 0, expires = 0}
    most, sum = math.max(most, entry.users), sum + entry.users
    hubs[entries[i]] = entry
  end
  local count = redis.call('HLEN', PEOPLE)
  return is_sound and most <= count and count <= sum
end

-- The pass begins again: it may have gone by people of this hub.
local function let_go(entry)
  entry.gone, entry.anonymous, entry.changed = true, 0, true
  cursor = '0'
end

-- Forget everybody; each hub will be asked to tell of them anew.
local function start_over()
  redis.call('UNLINK', PEOPLE)
  for _, entry in pairs(hubs) do
    let_go(entry)
    entry.users = 0
  end
end

local function let_go_expired(now)
  for id, entry in pairs(hubs) do
    if id ~= hub and not entry.gone and entry.expires < now then let_go(entry) end
  end
end

-- `there` (ids of hubs, blanks between) without those in `gone`, whose users are counted down.
local function without(there, gone)
  local rest = {}
  for id in string.gmatch(there, '%S+') do
    local entry = gone[id]
    if entry then
      entry.users, entry.changed = entry.users - 1, true
    else
      rest[#rest + 1] = id
    end
  end
  return table.concat(rest, ' ')
end

local function in_portions(command, words)
  for i = 1, #words, WORDS_MAX do
    redis.call(command, PEOPLE, unpack(words, i, math.min(i + WORDS_MAX - 1, #words)))
  end
end

-- `now_on`: user -> ids of hubs, '' for none.
local function write_people(now_on)
  local on_some, on_none = {}, {}
  for user, ids in pairs(now_on) do
    if ids == '' then
      on_none[#on_none + 1] = user
    else
      on_some[#on_some + 1] = user
      on_some[#on_some + 1] = ids
    end
  end
  in_portions('HSET', on_some)
  in_portions('HDEL', on_none)
end

local function take_changes(own)
  if not ARGV[FIRST_USER] then return end
  local now_on = {}
  for i, there in ipairs(redis.call('HMGET', PEOPLE, unpack(ARGV, FIRST_USER))) do
    local user = ARGV[FIRST_USER + i - 1]
    local is_known = there and string.find(' ' .. there .. ' ', ' ' .. hub .. ' ', 1, true)
    if i <= came and not is_known then
      now_on[user] = there and there .. ' ' .. hub or hub
      own.users = own.users + 1
    elseif i > came and is_known then
      now_on[user] = without(there, {[hub] = own})
    end
  end
  write_people(now_on)
end

-- Whether the report counts: what is known of the hub is what the hub thinks is known.
local function take_report(now)
  local own = hubs[hub]
  local follows = own and not own.gone and (own.number == before or own.number == number)
  local begins = before == 0 and (not own or own.users == 0 and own.number <= number)
  if not follows and not begins then
    -- A later report than what is known: something was lost. An earlier one: it comes too late.
    if own and not own.gone and own.number < number then let_go(own) end
    return false
  end
  own = follows and own or {users = 0}
  own.gone, own.number, own.anonymous, own.changed = false, number, anonymous, true
  own.expires = now + ttl_ms
  hubs[hub] = own
  take_changes(own)
  return true
end

-- Hubs that are gone and still have people.
local function find_unswept()
  local found = {}
  for id, entry in pairs(hubs) do
    if entry.gone and entry.users > 0 then found[id] = entry end
  end
  return next(found) and found
end

-- Take hubs that are gone out of one portion of people. Whether some is left to be done.
local function sweep()
  local gone = find_unswept()
  if not gone then return false end
  local found = redis.call('HSCAN', PEOPLE, cursor, 'COUNT', LIMIT.PRESENCE_PORTION_MAX)
  local people, now_on = {}, {}
  for i = 1, #found[2], 2 do people[found[2][i]] = found[2][i + 1] end
  for user, there in pairs(people) do
    local rest = without(there, gone)
    if rest ~= there then now_on[user] = rest end
  end
  write_people(now_on)
  cursor = found[1]
  if cursor == '0' and find_unswept() then start_over() end -- a whole pass did not find them
  return find_unswept() and true or false
end

local function write_hub(id, entry, now)
  if entry.gone and entry.users == 0 and entry.expires + FORGET_MS < now then
    redis.call('HDEL', PRESENCE, id)
    redis.call('HDEL', BATCHES, id)
  elseif entry.changed then
    redis.call('HSET', PRESENCE, id, string.format(
      '%s:%.0f:%.0f:%.0f:%.0f',
      entry.gone and 'gone' or 'here', entry.number, entry.anonymous, entry.users, entry.expires))
  end
end

local function count_people()
  local sum = redis.call('HLEN', PEOPLE)
  for _, entry in pairs(hubs) do sum = sum + entry.anonymous end
  return sum
end

expect('hash', PRESENCE, PEOPLE, BATCHES)
check_room(ROOM)
local now = now_in_ms()
read_room(ROOM, now)
local stored = redis.call('HMGET', ROOM.room, 'online', 'sweep')
local published = whole(stored[1], 'online', -1)
cursor = string.match(stored[2] or '', '^%d+$') or '0'

if not read_hubs() then start_over() end
if may_let_go then let_go_expired(now) end
local counts = take_report(now)
local is_unswept = sweep()
counts = counts and not hubs[hub].gone

for id, entry in pairs(hubs) do write_hub(id, entry, now) end
redis.call('PEXPIRE', PEOPLE, FORGET_MS)
if is_unswept then
  redis.call('HSET', ROOM.room, 'sweep', cursor)
elseif stored[2] then
  redis.call('HDEL', ROOM.room, 'sweep')
end
local total = count_people()
if counts and not more_follow and not is_unswept and total ~= published then
  redis.call('HSET', ROOM.room, 'online', total)
  publish_room_state(ROOM, 'online', {people = total}, false)
end
return {counts and 1 or 0, total, is_unswept and 1 or 0}
