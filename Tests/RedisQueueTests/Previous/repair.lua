-- Checks the invariants of some entries and mends what is broken; the next call goes on from there.
--
-- ARGV[3]: about how many entries. ARGV[4]: lease in ms.
-- Returns { examined, 1 at the end of everything, then (rule, mended)… }.
--
-- The walk stands in `repair` (hash: phase, cursor, lane, inner): all leases by their owners, by their ends, and by the
-- mailboxes they keep busy; then every profile's lanes, parked jobs and slots. Lost lanes lose no job for good: the
-- scheduler enqueues what is due again.
local most, lease_ms = tonumber(ARGV[3]), tonumber(ARGV[4])
local REPAIR, PROFILES_LEFT = base .. 'repair', base .. 'repair-profiles'
local position = call('HMGET', REPAIR, 'phase', 'cursor', 'lane', 'inner')
local phase, cursor = position[1] or 'owners', position[2] or '0'
local lane, inner = tonumber(position[3] or 0), position[4] or '0'
local examined, mended, ended = 0, {}, false
local KINDS = { 'p', 's', 't' }

local function mend(rule, count) mended[rule] = (mended[rule] or 0) + (count or 1) end

-- A job may hold a slot while it has an owner, or while a lease without one has not ended: its worker closes the session
-- when the next renewal is refused, so the slot is free only then.
local function holds(job)
  return call('HEXISTS', OWNERS, job) == 1 or call('ZSCORE', LEASES, job)
end

local function check_owners()
  local page = call('HSCAN', OWNERS, cursor, 'COUNT', math.max(1, most - examined))
  cursor = page[1]
  for i = 1, #page[2], 2 do
    local job, r = page[2][i], record(page[2][i + 1])
    local mailbox, kind = parts(job)
    examined = examined + 1
    if not call('ZSCORE', LEASES, job) then
      -- A full lease: its worker may well live.
      call('ZADD', LEASES, now + lease_ms, job)
      mend('owner-without-lease')
    end
    local sessions, own = call('HGET', BUSY, mailbox) or '', sub(job, #mailbox + 1)
    if without(sessions, own) == sessions then
      call('HSET', BUSY, mailbox, own .. sessions)
      mend('lease-without-slot')
    end
    if call('ZSCORE', SLOTS .. r.profile, job) ~= SCORE[kind] then
      call('ZADD', SLOTS .. r.profile, SCORE[kind], job)
      mend('lease-without-slot')
    end
    call('HSETNX', PROFILES, r.profile, '0:0:0:1:0:0:0::')
  end
  if cursor == '0' then phase = 'leases' end
end

local function check_leases()
  local page = call('ZSCAN', LEASES, cursor, 'COUNT', math.max(1, most - examined))
  cursor = page[1]
  for i = 1, #page[2], 2 do
    examined = examined + 1
    if tonumber(page[2][i + 1]) <= now and call('HEXISTS', OWNERS, page[2][i]) == 0 then
      call('ZREM', LEASES, page[2][i])
      mend('lease-without-owner')
    end
  end
  if cursor == '0' then phase = 'busy' end
end

local function check_busy()
  local page = call('HSCAN', BUSY, cursor, 'COUNT', math.max(1, most - examined))
  cursor = page[1]
  for i = 1, #page[2], 2 do
    local mailbox, sessions = page[2][i], page[2][i + 1]
    examined = examined + 1
    local left, lost = sessions, 0
    for each in string.gmatch(sessions, '%a%d*') do
      if not holds(mailbox .. each) then left, lost = without(left, each), lost + 1 end
    end
    if lost > 0 or not match(sessions, '%a') then
      mend('slot-without-lease', math.max(1, lost))
      local free = string.gsub(left, '!%d*', '')
      if free == '' then call('HDEL', BUSY, mailbox) else call('HSET', BUSY, mailbox, free) end
      for profile in string.gmatch(left, '!(%d+)') do unpark(profile, parked_at(profile, mailbox)) end
    end
  end
  if cursor == '0' then phase = 'profiles' end
end

-- A lane with jobs must have a turn, or a reason to have none.
local function check_lanes(profile)
  local p = settings(call('HGET', PROFILES, profile))
  for class = 0, 3 do
    local name, kinds, any = class .. ':' .. profile, call('HGET', ODD, class .. ':' .. profile) or '', false
    for _, kind in ipairs(KINDS) do
      if call('EXISTS', READY .. class .. kind .. ':' .. profile) == 1 then
        any = true
        if kind ~= USUAL[class] and not string.find(kinds, kind, 1, true) then
          kinds = kinds .. kind
          call('HSET', ODD, name, kinds)
          leave_full(class, profile)
          line_up(class, profile)
          mend('lane-without-turn')
        end
      end
    end
    if any then
      local turn = call('ZSCORE', TURN .. class, profile)
      local full = string.find(' ' .. (call('HGET', FULL, profile) or ''), ' ' .. class .. ':', 1, true)
      local may_run = p.limit > 0 and not p.paused and room(p, profile) > 0
      if (turn and full) or (full and may_run) or not (turn or full or call('ZSCORE', WAIT, name)) then
        line_up(class, profile, leave_full(class, profile))
        woken = true
        mend('lane-without-turn')
      end
    end
  end
end

-- The wish to run of a job that is leased already: kept as an enqueue would keep it.
local function keep_wish(job, owner, class, profile, due)
  local r = record(owner)
  if r.again or (class > 1 and r.profile == profile) then return end
  r.again, r.again_profile, r.again_due = tostring(class), profile, due
  call('HSET', OWNERS, job, written(r))
end

local function check_ready(profile, class, kind)
  local key = READY .. class .. kind .. ':' .. profile
  local page = call('ZSCAN', key, inner, 'COUNT', math.max(1, most - examined))
  inner = page[1]
  local jobs = {}
  for i = 1, #page[2], 2 do jobs[#jobs + 1] = page[2][i] end
  examined = examined + #jobs
  -- A page of a small zset is all of it, at most 128; of a large one about as many as asked for.
  for from = 1, #jobs, 1000 do
    local to = math.min(#jobs, from + 999)
    local owners = call('HMGET', OWNERS, unpack(jobs, from, to))
    local aside = call('EXISTS', POISON) == 1 and call('ZMSCORE', POISON, unpack(jobs, from, to)) or {}
    for n = from, to do
      local owner = owners[n - from + 1]
      if owner or aside[n - from + 1] then
        if owner then keep_wish(jobs[n], owner, class, profile, call('ZSCORE', key, jobs[n]) or '0') end
        call('ZREM', key, jobs[n])
        mend('job-in-two-places')
      end
    end
    for lower = class + 1, 3 do
      local other = READY .. lower .. kind .. ':' .. profile
      if call('EXISTS', other) == 1 then
        local removed = call('ZREM', other, unpack(jobs, from, to))
        if removed > 0 then mend('job-in-two-places', removed) end
      end
    end
  end
  if call('EXISTS', PARKED .. profile) == 1 then
    for _, job in ipairs(jobs) do
      local member = parked_of_job(profile, job)
      if member then
        call('ZREM', PARKED .. profile, member)
        mend('job-in-two-places')
      end
    end
  end
end

local function check_parked(profile)
  local page = call('ZSCAN', PARKED .. profile, inner, 'COUNT', math.max(1, most - examined))
  inner = page[1]
  for i = 1, #page[2], 2 do
    local member = page[2][i]
    local job, class, due = match(member, '^(.-):(%d):(.*)$')
    examined = examined + 1
    local owner = call('HGET', OWNERS, job)
    if owner or call('ZSCORE', POISON, job) then
      if owner then keep_wish(job, owner, tonumber(class), profile, due) end
      call('ZREM', PARKED .. profile, member)
      mend('job-in-two-places')
    elseif not string.find((call('HGET', BUSY, (parts(job))) or '') .. '!', '!' .. profile .. '!', 1, true) then
      -- Its mailbox is free, or does not know of it; the next visit parks it again if it must.
      unpark(profile, { member })
      mend('parked-at-free-mailbox')
    end
  end
end

local function check_slots(profile)
  local page = call('ZSCAN', SLOTS .. profile, inner, 'COUNT', math.max(1, most - examined))
  inner = page[1]
  for i = 1, #page[2], 2 do
    local job = page[2][i]
    examined = examined + 1
    local owner = call('HGET', OWNERS, job)
    if (owner and record(owner).profile ~= profile) or not (owner or call('ZSCORE', LEASES, job)) then
      call('ZREM', SLOTS .. profile, job)
      reopen({ profile })
      mend('slot-without-lease')
    end
  end
end

-- One lane, the parked jobs or the slots of the first profile on the list: 12 kinds of lanes, then those two.
local function check_profile()
  local profile = call('LINDEX', PROFILES_LEFT, 0)
  if not profile then
    if cursor == '-' then
      phase, cursor, ended = 'owners', '0', true
      return
    end
    local page = call('HSCAN', PROFILES, cursor, 'COUNT', 50)
    cursor = page[1] == '0' and '-' or page[1]
    for i = 1, #page[2], 2 do call('RPUSH', PROFILES_LEFT, page[2][i]) end
    examined = examined + 1
    return
  end
  if lane < 12 then
    check_ready(profile, floor(lane / 3), KINDS[lane % 3 + 1])
  elseif lane == 12 then
    check_parked(profile)
  else
    check_slots(profile)
  end
  if inner ~= '0' then return end
  lane = lane + 1
  if lane > 13 then
    check_lanes(profile)
    lane = 0
    examined = examined + 1
    call('LPOP', PROFILES_LEFT)
  end
end

local steps = { owners = check_owners, leases = check_leases, busy = check_busy, profiles = check_profile }
while examined < most and not ended do steps[phase]() end
call('HSET', REPAIR, 'phase', phase, 'cursor', cursor, 'lane', lane, 'inner', inner)
wake()
local reply = { examined, ended and 1 or 0 }
for rule, count in pairs(mended) do
  reply[#reply + 1] = rule
  reply[#reply + 1] = count
end
return reply
