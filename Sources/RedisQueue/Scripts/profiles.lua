-- The numbers of some profiles' parts of the queue; those with nothing are left out. One step of a walk through all, so
-- that no call takes long: a profile may come twice.
--
-- ARGV[3]: cursor, 0 at first. ARGV[4]: about how many profiles.
-- Returns { next cursor, 0 at the end, then for each profile { id, limit, 1 if a direction counts on it, leased, those
--   that count on it, held until in ms or '', then for class 0…3 waiting, oldest due or '', then (reason, blocked)… } }.
local page = call('HSCAN', PROFILES, ARGV[3], 'COUNT', ARGV[4])
local reply = { page[1] }
local KINDS = { 'p', 's', 't' }

local function numbers(profile, text)
  local lanes = { SLOTS .. profile, PARKED .. profile }
  for class = 0, 3 do
    for _, kind in ipairs(KINDS) do lanes[#lanes + 1] = READY .. class .. kind .. ':' .. profile end
  end
  if call('EXISTS', unpack(lanes)) == 0 then return end

  local p = settings(text)
  local why_in, why_out = match(text, ':([^:]*):([^:]*)$')
  local waiting, oldest, blocked = { 0, 0, 0, 0 }, {}, {}
  local function block(reason, count) if count > 0 then blocked[reason] = (blocked[reason] or 0) + count end end
  local function see(class, due, count)
    waiting[class + 1] = waiting[class + 1] + count
    if not oldest[class + 1] or tonumber(due) < tonumber(oldest[class + 1]) then oldest[class + 1] = due end
  end
  local used = p.limit - room(p, profile)
  local free = math.max(0, p.free)
  for class = 0, 3 do
    for _, kind in ipairs(KINDS) do
      local key = READY .. class .. kind .. ':' .. profile
      local count = call('ZCARD', key)
      if count > 0 then
        see(class, call('ZRANGE', key, 0, 0, 'WITHSCORES')[2], count)
        if p.paused then
          block('paused', count)
        elseif p.limit == 0 then
          block('limit', count)
        elseif held_until(p, class, kind) > now then
          local incoming = kind == 'p' or (kind == 't' and p.held_in == p.held_test)
          block(incoming and why_in or why_out, count)
        elseif on_profile(p, kind) then
          local runnable = math.min(count, free)
          free = free - runnable
          block('limit', count - runnable)
        end
      end
    end
  end
  for _, member in ipairs(call('ZRANGE', PARKED .. profile, 0, -1)) do
    local class, due = match(member, ':(%d):(.*)$')
    see(tonumber(class), due, 1)
    block('busy-mailbox', 1)
  end
  local until_ms = math.max(p.held_in, p.held_out)
  local found = {
    profile, p.limit, (p.pop3 or p.smtp) and 1 or 0, call('ZCARD', SLOTS .. profile), used,
    until_ms > now and format('%.0f', until_ms) or ''
  }
  for class = 1, 4 do
    found[#found + 1] = waiting[class]
    found[#found + 1] = oldest[class] or ''
  end
  for reason, count in pairs(blocked) do
    found[#found + 1] = reason
    found[#found + 1] = count
  end
  return found
end

for i = 1, #page[2], 2 do reply[#reply + 1] = numbers(page[2][i], page[2][i + 1]) end
return reply
