-- Checks what must always hold; returns the broken rules in words, none when all is well. Reads everything: for tests
-- and for a person who looks for the cause of something, never in the run of things.
local broken = {}
local function rule(holds, text) if not holds then broken[#broken + 1] = text end end
local place, of_mailboxes, of_profiles = {}, {}, {}
local function put(job, where)
  rule(not place[job], job .. ' is in ' .. tostring(place[job]) .. ' and in ' .. where)
  place[job] = where
end
local function hash(key)
  local fields, all = {}, call('HGETALL', key)
  for i = 1, #all, 2 do fields[all[i]] = all[i + 1] end
  return fields
end
local profiles, busy = hash(PROFILES), hash(BUSY)

for _, key in ipairs(call('KEYS', base .. '*')) do
  local name = sub(key, #base + 1)
  local class, kind, profile = match(name, '^ready:(%d)(%a):(%d+)$')
  if class then
    for _, job in ipairs(call('ZRANGE', key, 0, -1)) do
      put(job, name)
      rule(match(job, '%a') == kind, job .. ' is in ' .. name)
    end
    local lane = class .. ':' .. profile
    local turn = call('ZSCORE', TURN .. class, profile)
    local full = string.find(' ' .. (call('HGET', FULL, profile) or ''), ' ' .. class .. ':', 1, true)
    rule(turn or full or call('ZSCORE', WAIT, lane), name .. ' has jobs and no turn')
    rule(not (turn and full), name .. ' has a turn and is full')
    rule(kind == USUAL[tonumber(class)] or string.find(call('HGET', ODD, lane) or '', kind, 1, true),
      name .. ' is not in odd')
    rule(profiles[profile], 'profile ' .. profile .. ' has jobs and is not in profiles')
  end
  profile = match(name, '^parked:(%d+)$')
  if profile then
    for _, member in ipairs(call('ZRANGE', key, 0, -1)) do
      local job = match(member, '^(.-):')
      put(job, name)
      rule(string.find((busy[parts(job)] or '') .. '!', '!' .. profile .. '!', 1, true),
        job .. ' is parked and its mailbox is free')
    end
  end
  profile = match(name, '^slots:(%d+)$')
  if profile then
    local jobs = call('ZRANGE', key, 0, -1, 'WITHSCORES')
    for i = 1, #jobs, 2 do
      of_profiles[jobs[i]] = profile
      rule(SCORE[match(jobs[i], '%a')] == jobs[i + 1], jobs[i] .. ' has the wrong kind in ' .. name)
    end
  end
end
for mailbox, sessions in pairs(busy) do
  local pop3 = 0
  for each, kind in string.gmatch(sessions, '((%a)%d*)') do
    of_mailboxes[mailbox .. each] = true
    if kind ~= 's' then pop3 = pop3 + 1 end
  end
  rule(pop3 <= 1, 'mailbox ' .. mailbox .. ' has ' .. pop3 .. ' POP3 sessions')
  rule(match(sessions, '%a'), 'mailbox ' .. mailbox .. ' is busy with nothing')
end

local leased, on_profiles, on_mailboxes = 0, {}, {}
for job, owner in pairs(hash(OWNERS)) do
  local r = record(owner)
  local mailbox, kind = parts(job)
  leased = leased + 1
  put(job, 'leases')
  rule(call('ZSCORE', LEASES, job), job .. ' has an owner and no lease')
  rule(of_mailboxes[job], job .. ' is leased and not in the slots of its mailbox')
  rule(of_profiles[job] == r.profile, job .. ' is leased and not in the slots of its profile')
  local p = settings(profiles[r.profile])
  if on_profile(p, kind) then on_profiles[r.profile] = (on_profiles[r.profile] or 0) + 1 end
  if (kind ~= 's' and not p.pop3) or (kind ~= 'p' and not p.smtp) then
    local key = mailbox .. ' of profile ' .. r.profile
    on_mailboxes[key] = (on_mailboxes[key] or 0) + 1
  end
  of_mailboxes[job], of_profiles[job] = nil, nil
end
for job in pairs(of_mailboxes) do rule(false, job .. ' holds a slot of its mailbox without a lease') end
for job in pairs(of_profiles) do rule(false, job .. ' holds a slot of its profile without a lease') end
rule(call('ZCARD', LEASES) == leased, 'leases and owners differ in number')
for _, job in ipairs(call('ZRANGE', POISON, 0, -1)) do put(job, 'poison') end
rule(call('ZCARD', POISON) == call('HLEN', POISON_OF), 'poison and its reasons differ in number')
for profile, count in pairs(on_profiles) do
  rule(count <= settings(profiles[profile]).limit, 'limit: profile ' .. profile .. ' has ' .. count)
end
for name, count in pairs(on_mailboxes) do
  rule(count <= settings(profiles[match(name, '(%d+)$')]).limit, 'limit: mailbox ' .. name .. ' has ' .. count)
end
return broken
