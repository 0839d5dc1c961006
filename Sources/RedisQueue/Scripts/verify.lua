-- Checks what must always hold; returns the broken rules in words, none when all is well. Reads everything: for tests
-- and for a person who looks for the cause of something, never in the run of things.
local broken = {}
local function rule(holds, text) if not holds then broken[#broken + 1] = text end end
local place, members_of_mailboxes, members_of_profiles = {}, {}, {}
local function put(job, where)
  rule(not place[job], job .. ' is in ' .. tostring(place[job]) .. ' and in ' .. where)
  place[job] = where
end

for _, key in ipairs(call('KEYS', base .. '*')) do
  local name = string.sub(key, #base + 1)
  local class, profile = string.match(name, '^ready:(%d):(%d+)$')
  if class then
    for _, job in ipairs(call('ZRANGE', key, 0, -1)) do put(job, name) end
    local turn = call('ZSCORE', TURN .. class, profile) and 1 or 0
    local full = call('ZSCORE', FULL, class .. ':' .. profile) and 1 or 0
    rule(turn + full == 1, name .. ' has jobs and stands in ' .. turn .. ' turns and ' .. full .. ' of full')
  end
  profile = string.match(name, '^parked:(%d+)$')
  if profile then
    rule(call('SISMEMBER', PARKED_IN, profile) == 1, name .. ' is not in parked-in')
    for _, member in ipairs(call('ZRANGE', key, 0, -1)) do
      local job = string.match(member, '^(.-):')
      put(job, name)
      rule(call('EXISTS', SLOTS_OF_MAILBOX .. parts(job)) == 1, job .. ' is parked and its mailbox is free')
    end
  end
  local mailbox = string.match(name, '^slots:m(%d+)$')
  if mailbox then
    local pop3 = 0
    for _, job in ipairs(call('ZRANGE', key, 0, -1)) do
      members_of_mailboxes[job] = mailbox
      if string.match(job, '[pt]$') then pop3 = pop3 + 1 end
    end
    rule(pop3 <= 1, 'mailbox ' .. mailbox .. ' has ' .. pop3 .. ' POP3 sessions')
  end
  local owner, kind = string.match(name, '^slots:p(%d+):(%a)$')
  if owner then
    for _, job in ipairs(call('ZRANGE', key, 0, -1)) do members_of_profiles[job] = owner .. ':' .. kind end
  end
end

local owners = call('HGETALL', OWNERS)
local of_profile, of_mailbox = {}, {}
for i = 1, #owners, 2 do
  local job, r = owners[i], record(owners[i + 1])
  local mailbox, kind = parts(job)
  put(job, 'leases')
  local ends = call('ZSCORE', LEASES, job)
  rule(ends, job .. ' has an owner and no lease')
  rule(members_of_mailboxes[job] == mailbox, job .. ' is leased and not in the slots of its mailbox')
  rule(members_of_profiles[job] == r.profile .. ':' .. kind, job .. ' is leased and not in the slots of its profile')
  rule(call('ZSCORE', SLOTS_OF_MAILBOX .. mailbox, job) == ends, job .. ' ends at another time in its mailbox')
  local p = call('HMGET', PROFILE .. r.profile, 'in', 'out')
  local pop3, smtp = p[1] == '1', p[2] == '1'
  if (kind ~= 's' and pop3) or (kind ~= 'p' and smtp) then of_profile[r.profile] = (of_profile[r.profile] or 0) + 1 end
  if (kind ~= 's' and not pop3) or (kind ~= 'p' and not smtp) then
    local key = mailbox .. ' of profile ' .. r.profile
    of_mailbox[key] = (of_mailbox[key] or 0) + 1
  end
  members_of_mailboxes[job], members_of_profiles[job] = nil, nil
end
for job in pairs(members_of_mailboxes) do rule(false, job .. ' holds a slot of its mailbox without a lease') end
for job in pairs(members_of_profiles) do rule(false, job .. ' holds a slot of its profile without a lease') end
rule(call('ZCARD', LEASES) == #owners / 2, 'leases and owners differ in number')
for profile, count in pairs(of_profile) do
  local limit = tonumber(call('HGET', PROFILE .. profile, 'limit') or 0)
  rule(count <= limit, 'limit: profile ' .. profile .. ' has ' .. count)
end
for name, count in pairs(of_mailbox) do
  local limit = tonumber(call('HGET', PROFILE .. string.match(name, '(%d+)$'), 'limit') or 0)
  rule(count <= limit, 'limit: mailbox ' .. name .. ' has ' .. count)
end
return broken
