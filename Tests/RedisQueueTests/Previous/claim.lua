-- Leases up to n jobs to a worker.
--
-- ARGV[3]: n, 1…256. ARGV[4]: worker. ARGV[5]: lease in ms.
-- Returns { leases taken back, first fence counter, (place in the reply, reclaims)…, then for each turn: profile, class,
--   count, (job, due) × count }; the fences go up by one from job to job.
-- Errors: NOTOPEN <ms>; EPOCHLOST fences when this shard's part of the epoch's 2³² fences is used up, which ends the
--   epoch.
--
-- Order: expired leases first (at most 16), then lanes whose time to wait is over (at most 32). Class 0 is served first,
-- but each lower class with work keeps an eighth of the places; a claim of fewer than 8 has no eighths, so of every 8
-- such claims one serves class 1 first, one class 2, one class 3. Inside a class the profiles take turns by start-time
-- fair queueing: `turn:<class>` holds each one's virtual start time, a turn is at most `quantum` jobs, and n jobs move it
-- on by n / weight.
local places, worker, lease_ms = tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
if now < tonumber(held[3]) then return redis.error_reply('NOTOPEN ' .. tonumber(held[3]) - now) end
local state = call('HMGET', STATE, 'vt0', 'vt1', 'vt2', 'vt3', 'small')
local counter, small = tonumber(held[4]), tonumber(state[5] or 0)
if counter + places >= floor(4294967295 / tonumber(held[5] or 1)) then
  call('DEL', KEYS[1])
  return redis.error_reply('EPOCHLOST fences')
end
for class = 0, 3 do virtual[class] = tonumber(state[class + 1] or 0) end

local expired = call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, 16)
if #expired > 0 then
  local jobs, records = {}, {}
  for i, owner in ipairs(call('HMGET', OWNERS, unpack(expired))) do
    local job = expired[i]
    if owner then
      local r = record(owner)
      jobs[#jobs + 1], records[#records + 1] = job, r
      -- A lease that was never renewed may be one whose reply was lost: nobody began the work, so it does not count.
      if r.renewed and not r.withdrawn then
        local reclaims = call('HINCRBY', RECLAIMS, job, 1)
        if reclaims >= 3 then
          r.poisoned = true
          call('HDEL', RECLAIMS, job)
          call('ZADD', POISON, now, job)
          call('HSET', POISON_OF, job, r.profile .. ':' .. reclaims .. ':' .. r.worker)
        end
      end
    else
      call('ZREM', LEASES, job)
    end
  end
  release(jobs, records, false)
  call('HINCRBY', STATE, 'reaped', #jobs)
end

for _, name in ipairs(call('ZRANGEBYSCORE', WAIT, '-inf', now, 'LIMIT', 0, 32)) do
  local class, profile = match(name, '^(%d):(.*)$')
  call('ZREM', WAIT, name)
  line_up(tonumber(class), profile, leave_full(tonumber(class), profile))
end

local ends = format('%.0f', now + lease_ms)
local quantum = math.max(4, math.min(8, math.ceil(places / 4)))
local visits = places + 64
local reply = { #expired, counter + 1, {} }
local jobs, leases, owners = {}, {}, {}
local sessions, changed = {}, {}
local profiles, any_odd = {}, call('EXISTS', ODD) == 1
local tags, full = {}, {}
local ending = ':' .. worker .. '@' .. format('%.0f', now)

-- Whether a job may run beside the sessions its mailbox has: `busy`, or `known` when it is one of them.
local function conflict(present, own, kind, p)
  local count, busy = 0, false
  for each, its_kind in string.gmatch(present, '((%a)%d*)') do
    if each == own then return 'known' end
    if kind ~= 's' and its_kind ~= 's' then busy = true end
    if (its_kind ~= 's' and not p.pop3) or (its_kind ~= 'p' and not p.smtp) then count = count + 1 end
  end
  local counts = (kind ~= 's' and not p.pop3) or (kind ~= 'p' and not p.smtp)
  if busy or (counts and count >= p.limit) then return 'busy' end
end

-- A job that was enqueued under this profile while it is leased under another runs here when that lease has ended.
local function run_afterwards(job, class, profile, due)
  local owner = call('HGET', OWNERS, job)
  if not owner then return end
  local r = record(owner)
  if r.profile == profile then return end
  r.again, r.again_profile, r.again_due = tostring(class), profile, due
  call('HSET', OWNERS, job, written(r))
end

-- Leases the jobs of one kind (job, due, …) that were taken out of a lane, parks those whose mailbox is busy. Returns how
-- many were leased.
local function lease(class, profile, p, kind, entries)
  local mailboxes = {}
  for i = 1, #entries, 2 do mailboxes[#mailboxes + 1] = match(entries[i], '^%d+') end
  local present = call('HMGET', BUSY, unpack(mailboxes))
  local head = #reply
  local at, score, count = head + 3, SCORE[kind], 0
  local slots, parked = {}, nil
  local middle = ':' .. profile .. ':' .. class .. ':'
  for i, mailbox in ipairs(mailboxes) do
    local job, due = entries[2 * i - 1], entries[2 * i]
    local has = sessions[mailbox] or present[i]
    local own = sub(job, #mailbox + 1)
    local why = has and conflict(has, own, kind, p)
    if not why then
      count = count + 1
      counter = counter + 1
      if has then has = own .. has else has = own end
      jobs[#jobs + 1] = job
      leases[#leases + 1], leases[#leases + 2] = ends, job
      owners[#owners + 1], owners[#owners + 2] = job, format('%d', counter) .. middle .. due .. ending
      slots[#slots + 1], slots[#slots + 2] = score, job
      reply[at + 1], reply[at + 2] = job, due
      at = at + 2
      sessions[mailbox] = has
      changed[mailbox] = true
    elseif why == 'busy' then
      parked = parked or {}
      parked[#parked + 1], parked[#parked + 2] = '0', job .. ':' .. class .. ':' .. due
      local mark = '!' .. profile
      if not string.find(has .. '!', mark .. '!', 1, true) then
        sessions[mailbox] = has .. mark
        changed[mailbox] = true
      end
    else
      run_afterwards(job, class, profile, due)
    end
  end
  if parked then call('ZADD', PARKED .. profile, unpack(parked)) end
  if count > 0 then
    reply[head + 1], reply[head + 2], reply[head + 3] = profile, class, count
    call('ZADD', SLOTS .. profile, unpack(slots))
    if p.free and on_profile(p, kind) then p.free = p.free - count end
  end
  return count
end

-- The profile's last slots: every fourth time they are left to a lower class that has work, or it would starve.
local function leaves_last_slots(class, profile, p, wanted)
  local free = room(p, profile)
  if free >= wanted and free * 8 > p.limit then return false end
  local lower = {}
  for other = class + 1, 3 do lower[#lower + 1] = READY .. other .. USUAL[other] .. ':' .. profile end
  return call('EXISTS', unpack(lower)) > 0 and call('HINCRBY', base .. 'scarce', profile, 1) % 4 == 0
end

-- Takes up to `wanted` jobs of some kinds of a lane, in the order of their due times. Returns how many were leased and
-- whether there may be more.
local function take_mixed(class, profile, p, kinds, wanted)
  local all, found, last = {}, 0, nil
  for n = 1, #kinds do
    local entries = call('ZRANGE', READY .. class .. kinds[n] .. ':' .. profile, 0, wanted - 1, 'WITHSCORES')
    if #entries > 0 then found, last = found + 1, kinds[n] end
    for i = 1, #entries, 2 do all[#all + 1] = { kinds[n], entries[i], entries[i + 1], tonumber(entries[i + 1]) } end
  end
  if found > 1 then table.sort(all, function(a, b) return a[4] < b[4] or (a[4] == b[4] and a[2] < b[2]) end) end
  local taken, n = 0, 1
  while n <= #all and n <= wanted do
    -- A run of one kind, as far as its limit allows.
    local kind, run, names = all[n][1], {}, {}
    local most = on_profile(p, kind) and room(p, profile) or wanted
    while n <= #all and n <= wanted and all[n][1] == kind do
      if #names < most then
        names[#names + 1] = all[n][2]
        run[#run + 1], run[#run + 2] = all[n][2], all[n][3]
      end
      n = n + 1
    end
    if #names > 0 then
      call('ZREM', READY .. class .. kind .. ':' .. profile, unpack(names))
      taken = taken + lease(class, profile, p, kind, run)
    end
  end
  -- One more visit finds out: empty, full or held.
  return taken, #all > 0
end

-- Takes up to `wanted` jobs of a lane. Returns how many, what the lane is now – `more`, `empty`, `full` (a limit holds
-- back what is left), `held` or `deferred` – and until when some of it is held.
local function take(class, profile, p, odd, wanted, may_defer)
  if p.limit == 0 or p.paused then return 0, 'full' end
  local kinds = odd and USUAL[class] .. odd or USUAL[class]
  local open, limited, until_ms = {}, false, nil
  for n = 1, #kinds do
    local kind = sub(kinds, n, n)
    local hold = held_until(p, class, kind)
    if hold > now then
      until_ms = math.min(until_ms or hold, hold)
    elseif on_profile(p, kind) and room(p, profile) <= 0 then
      limited = true
    else
      if may_defer and class < 3 and on_profile(p, kind) and leaves_last_slots(class, profile, p, wanted) then
        return 0, 'deferred'
      end
      open[#open + 1] = kind
    end
  end

  local taken, more = 0, false
  if #open > 1 then
    taken, more = take_mixed(class, profile, p, open, wanted)
  elseif #open == 1 then
    local kind = open[1]
    local counts = on_profile(p, kind)
    local most = counts and math.min(wanted, room(p, profile)) or wanted
    local entries = call('ZPOPMIN', READY .. class .. kind .. ':' .. profile, most)
    if #entries > 0 then taken = lease(class, profile, p, kind, entries) end
    if #entries == 2 * most then
      if counts and p.free <= 0 then limited = true else more = true end
    end
  end
  if more then return taken, 'more' end
  if limited then return taken, 'full', until_ms end
  if until_ms then return taken, 'held', until_ms end
  if odd then call('HDEL', ODD, class .. ':' .. profile) end
  return taken, 'empty'
end

-- The turns of each class that were taken out of `turn:<class>` and not given yet, in order. What the server still has
-- begins no earlier than `bound`.
local lines = {}
for class = 0, 3 do lines[class] = { bound = -1 } end

local function stand_in_line(line, turn)
  local at = #line + 1
  while at > 1 and line[at - 1].tag > turn.tag do at = at - 1 end
  table.insert(line, at, turn)
end

local function next_turn(class, wanted)
  local line = lines[class]
  if line.bound and not (line[1] and line[1].tag <= line.bound) then
    local count = math.ceil(wanted / quantum)
    local popped = call('ZPOPMIN', TURN .. class, count)
    local unknown, names = {}, {}
    for i = 1, #popped, 2 do
      if not profiles[popped[i]] then unknown[#unknown + 1] = popped[i] end
      names[#names + 1] = class .. ':' .. popped[i]
    end
    if #unknown > 0 then
      for i, text in ipairs(call('HMGET', PROFILES, unpack(unknown))) do profiles[unknown[i]] = settings(text) end
    end
    local odd = any_odd and #names > 0 and call('HMGET', ODD, unpack(names)) or {}
    for i = 1, #popped, 2 do
      stand_in_line(line, { profile = popped[i], tag = tonumber(popped[i + 1]), odd = odd[(i + 1) / 2] or nil })
    end
    line.bound = #popped == 2 * count and tonumber(popped[#popped]) or nil
  end
  return table.remove(line, 1)
end

-- Gives up to `limit` places to a class, one profile's turn after the other.
local function serve(class, limit, may_defer)
  local served, deferred = 0, {}
  while served < limit and visits > 0 do
    local turn = next_turn(class, limit - served)
    if not turn then break end
    visits = visits - 1
    local profile = turn.profile
    local p = profiles[profile]
    if turn.tag > virtual[class] then virtual[class] = turn.tag end
    local wanted = math.min(limit - served, quantum)
    local taken, lane, until_ms = take(class, profile, p, turn.odd, wanted, may_defer)
    turn.tag = turn.tag + taken / p.weight
    served = served + taken
    if lane == 'more' then
      stand_in_line(lines[class], turn)
    elseif lane == 'deferred' then
      deferred[#deferred + 1] = turn
    elseif lane == 'full' then
      full[profile] = (full[profile] and full[profile] .. ' ' or '') .. class .. ':' .. turn.tag
    else
      tags[#tags + 1], tags[#tags + 2] = class .. ':' .. profile, turn.tag
    end
    if until_ms then call('ZADD', WAIT, until_ms, class .. ':' .. profile) end
  end
  for _, turn in ipairs(deferred) do stand_in_line(lines[class], turn) end
  places = places - served
end

local work = {}
for class = 1, 3 do work[class] = call('EXISTS', TURN .. class) == 1 end
local share = floor(places / 8)
if share == 0 and (work[1] or work[2] or work[3]) then
  small = small + 1
  local lower = small % 8 - 4
  if lower > 0 and work[lower] then serve(lower, 1, true) end
end
for class = 0, 3 do
  local kept = 0
  for lower = class + 1, 3 do
    if work[lower] then kept = kept + share end
  end
  serve(class, places - kept, true)
end
for class = 0, 3 do serve(class, places, false) end

for class = 0, 3 do
  local back = {}
  for _, turn in ipairs(lines[class]) do back[#back + 1], back[#back + 2] = turn.tag, turn.profile end
  if #back > 0 then call('ZADD', TURN .. class, unpack(back)) end
end
if next(full) then
  local names, values = {}, {}
  for profile in pairs(full) do names[#names + 1] = profile end
  for i, lanes in ipairs(call('HMGET', FULL, unpack(names))) do
    values[2 * i - 1], values[2 * i] = names[i], (lanes and lanes .. ' ' or '') .. full[names[i]]
  end
  call('HSET', FULL, unpack(values))
end
if #tags > 0 then call('HSET', TAGS, unpack(tags)) end
call('HSET', STATE, 'small', small % 8, 'vt0', virtual[0], 'vt1', virtual[1], 'vt2', virtual[2], 'vt3', virtual[3])
if next(changed) then
  local values = {}
  for mailbox in pairs(changed) do values[#values + 1], values[#values + 2] = mailbox, sessions[mailbox] end
  call('HSET', BUSY, unpack(values))
end
if #jobs > 0 then
  call('HSET', KEYS[1], 'fence', format('%.0f', counter))
  call('ZADD', LEASES, unpack(leases))
  call('HSET', OWNERS, unpack(owners))
  if call('EXISTS', RECLAIMS) == 1 then
    local counted = reply[3]
    for i, reclaims in ipairs(call('HMGET', RECLAIMS, unpack(jobs))) do
      if reclaims then counted[#counted + 1], counted[#counted + 2] = i, tonumber(reclaims) end
    end
  end
end
wake()
return reply
