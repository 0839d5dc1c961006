-- The numbers of the queue. Work grows with the number of lanes that hold jobs, not with the jobs; callers cache it.
--
-- Returns { server ms, leased, taken back, blocked by limit, by busy mailbox, by pause,
--   then for class 0…3: waiting, oldest due in ms or '' }.
local waiting, oldest = { 0, 0, 0, 0 }, { false, false, false, false }
local limited, busy, paused = 0, 0, 0
local free, known = {}, {}

local function seen(class, due, count)
  waiting[class + 1] = waiting[class + 1] + count
  if not oldest[class + 1] or tonumber(due) < tonumber(oldest[class + 1]) then oldest[class + 1] = due end
end

local function lane(class, profile)
  local head = call('ZRANGE', READY .. class .. ':' .. profile, 0, 0, 'WITHSCORES')
  if not head[1] then return end
  local count = call('ZCARD', READY .. class .. ':' .. profile)
  seen(class, head[2], count)
  local p = known[profile]
  if not p then
    p = call('HMGET', PROFILE .. profile, 'limit', 'in', 'out', 'paused')
    known[profile] = p
    local slots = SLOTS_OF_PROFILE .. profile
    free[profile] = tonumber(p[1] or 0) - call('ZCARD', slots .. ':t')
    if p[2] == '1' then free[profile] = free[profile] - call('ZCARD', slots .. ':p') end
    if p[3] == '1' then free[profile] = free[profile] - call('ZCARD', slots .. ':s') end
  end
  if p[4] == '1' then
    paused = paused + count
  elseif tonumber(p[1] or 0) == 0 then
    limited = limited + count
  else
    local counts = p[2] == '1' or p[3] == '1'
    if class == 1 then counts = p[3] == '1' elseif class == 2 then counts = p[2] == '1' end
    if counts then
      local runnable = math.max(0, math.min(count, free[profile]))
      free[profile] = free[profile] - runnable
      limited = limited + count - runnable
    end
  end
end

local full = { [0] = {}, {}, {}, {} }
for _, name in ipairs(call('ZRANGE', FULL, 0, -1)) do
  local class, profile = string.match(name, '^(%d):(.*)$')
  table.insert(full[tonumber(class)], profile)
end
for class = 0, 3 do
  for _, profile in ipairs(call('ZRANGE', TURN .. class, 0, -1)) do lane(class, profile) end
  for _, profile in ipairs(full[class]) do lane(class, profile) end
end
for _, profile in ipairs(call('SMEMBERS', PARKED_IN)) do
  for _, member in ipairs(call('ZRANGE', PARKED .. profile, 0, -1)) do
    local class, due = string.match(member, ':(%d):(.*)$')
    seen(tonumber(class), due, 1)
    busy = busy + 1
  end
end
local reply = { now, call('ZCARD', LEASES), tonumber(call('GET', base .. 'reaped') or 0), limited, busy, paused }
for class = 1, 4 do
  reply[#reply + 1] = waiting[class]
  reply[#reply + 1] = oldest[class] or ''
end
return reply
