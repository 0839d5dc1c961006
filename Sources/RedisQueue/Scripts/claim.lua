-- Leases up to n jobs to a worker.
--
-- ARGV[3]: n, 1…256. ARGV[4]: worker. ARGV[5]: lease in ms.
-- Returns { leases taken back, then (job, profile, class, due, fence counter, reclaims) × granted }.
-- Errors: NOTOPEN <ms>; EPOCHLOST fences when this shard's part of the epoch's 2³² fences is used up, which ends the
--   epoch.
--
-- Order: expired leases first (at most 16). Class 0 is served first, but each lower class with work keeps an eighth of
-- the places; a claim of fewer than 8 has no eighths, so of every 8 such claims one serves class 1 first, one class 2,
-- one class 3. Inside a class the profiles take turns by start-time fair queueing: `turn:<class>` holds each one's virtual
-- start time, a turn is at most `quantum` jobs, and n jobs move it on by n / weight.
local places, worker, lease_ms = tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
if now < tonumber(held[3]) then return redis.error_reply('NOTOPEN ' .. tonumber(held[3]) - now) end
if tonumber(call('GET', base .. 'fence') or 0) + places >= math.floor(4294967295 / tonumber(held[4] or 1)) then
  call('DEL', KEYS[1])
  return redis.error_reply('EPOCHLOST fences')
end

local expired = call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, 16)
if #expired > 0 then
  local jobs, records = {}, {}
  for i, owner in ipairs(call('HMGET', OWNERS, unpack(expired))) do
    if owner then
      local r = record(owner)
      jobs[#jobs + 1], records[#records + 1] = expired[i], r
      -- A lease that was never renewed may be one whose reply was lost: nobody began the work, so it does not count.
      if r.renewed == '1' then call('HINCRBY', RECLAIMS, expired[i], 1) end
    else
      call('ZREM', LEASES, expired[i])
    end
  end
  release(jobs, records, false)
  call('INCRBY', base .. 'reaped', #jobs)
end

local ends = now + lease_ms
local quantum = math.max(4, math.min(8, math.ceil(places / 4)))
local visits = places + 64
local granted, virtual = {}, {}

-- Takes up to `wanted` jobs of a lane. Returns how many, what the lane is now (`more`, `empty`, `full`, `deferred`) and
-- the profile's weight.
local function take(class, profile, wanted, may_defer)
  local p = call('HMGET', PROFILE .. profile, 'limit', 'in', 'out', 'weight', 'paused')
  local limit, weight = tonumber(p[1] or 0), tonumber(p[4] or 1)
  if limit == 0 or p[5] == '1' then return 0, 'full', weight end
  local pop3, smtp = p[2] == '1', p[3] == '1'
  local slots = SLOTS_OF_PROFILE .. profile
  local free = wanted
  if pop3 or smtp then
    free = limit - call('ZCARD', slots .. ':t')
    if pop3 then free = free - call('ZCARD', slots .. ':p') end
    if smtp then free = free - call('ZCARD', slots .. ':s') end
    if free <= 0 and pop3 and smtp then return 0, 'full', weight end
    -- The profile's last slots: every fourth time they are left to a lower class that has work, or it would starve.
    if may_defer and class < 3 and free > 0 and (free < wanted or free * 8 <= limit) then
      for lower = class + 1, 3 do
        if call('EXISTS', READY .. lower .. ':' .. profile) == 1 then
          if call('HINCRBY', PROFILE .. profile, 'scarce', 1) % 4 == 0 then return 0, 'deferred', weight end
          break
        end
      end
    end
  end

  -- When only one direction counts on the profile, a full profile holds back some jobs and not others, so the visit
  -- looks a little past the first ones.
  local window = wanted
  if pop3 ~= smtp then window = wanted + 16 elseif free < wanted then window = free end
  local lane = READY .. class .. ':' .. profile
  local heads = call('ZRANGE', lane, 0, window, 'WITHSCORES')
  local left = math.max(0, #heads / 2 - window)
  local taken, gone, parked, members = 0, {}, {}, {}
  for i = 1, math.min(#heads, 2 * window), 2 do
    local job, due = heads[i], heads[i + 1]
    local mailbox, kind = parts(job)
    local on_profile, on_mailbox
    if kind == 'p' then on_profile, on_mailbox = pop3, not pop3
    elseif kind == 's' then on_profile, on_mailbox = smtp, not smtp
    else on_profile, on_mailbox = pop3 or smtp, not (pop3 and smtp) end
    if taken == wanted or (on_profile and free <= 0) then
      left = left + 1
    else
      local busy, known, count = false, false, 0
      for _, other in ipairs(call('ZRANGE', SLOTS_OF_MAILBOX .. mailbox, 0, -1)) do
        local _, its_kind = parts(other)
        if other == job then known = true end
        if kind ~= 's' and its_kind ~= 's' then busy = true end
        if (its_kind ~= 's' and not pop3) or (its_kind ~= 'p' and not smtp) then count = count + 1 end
      end
      gone[#gone + 1] = job
      if known then
        -- Leased already, under another profile: the caller enqueued it before the old lease ended. Dropped here.
      elseif busy or (on_mailbox and count >= limit) then
        parked[#parked + 1], parked[#parked + 2] = 0, job .. ':' .. class .. ':' .. due
      else
        call('ZADD', SLOTS_OF_MAILBOX .. mailbox, ends, job)
        local of_kind = members[kind] or {}
        members[kind] = of_kind
        of_kind[#of_kind + 1], of_kind[#of_kind + 2] = ends, job
        taken = taken + 1
        if on_profile then free = free - 1 end
        granted[#granted + 1] = { job, profile, class, due }
      end
    end
  end
  if #gone > 0 then call('ZREM', lane, unpack(gone)) end
  for kind, entries in pairs(members) do call('ZADD', slots .. ':' .. kind, unpack(entries)) end
  if #parked > 0 then
    call('ZADD', PARKED .. profile, unpack(parked))
    call('SADD', PARKED_IN, profile)
  end
  if left == 0 then return taken, 'empty', weight end
  if #gone == 0 or (free <= 0 and pop3 and smtp) then return taken, 'full', weight end
  return taken, 'more', weight
end

-- Gives up to `limit` places to a class, one profile's turn after the other.
local function serve(class, limit, may_defer)
  local served, deferred = 0, {}
  while served < limit and visits > 0 do
    local head = call('ZPOPMIN', TURN .. class)
    if not head[1] then break end
    visits = visits - 1
    local profile, tag = head[1], tonumber(head[2])
    if tag > (virtual[class] or 0) then virtual[class] = tag end
    local taken, lane, weight = take(class, profile, math.min(limit - served, quantum), may_defer)
    tag = tag + taken / weight
    served = served + taken
    if lane == 'more' then
      call('ZADD', TURN .. class, tag, profile)
    elseif lane == 'empty' then
      call('HSET', PROFILE .. profile, 'f' .. class, tag)
    elseif lane == 'full' then
      call('ZADD', FULL, tag, class .. ':' .. profile)
    else
      deferred[#deferred + 1], deferred[#deferred + 2] = tag, profile
    end
  end
  if #deferred > 0 then call('ZADD', TURN .. class, unpack(deferred)) end
  places = places - served
end

local work = {}
for class = 1, 3 do work[class] = call('EXISTS', TURN .. class) == 1 end
local share = math.floor(places / 8)
if share == 0 and (work[1] or work[2] or work[3]) then
  local first = call('INCR', base .. 'small') % 8 - 4
  if first > 0 and work[first] then serve(first, 1, true) end
end
for class = 0, 3 do
  local kept = 0
  for lower = class + 1, 3 do
    if work[lower] then kept = kept + share end
  end
  serve(class, places - kept, true)
end
for class = 0, 3 do serve(class, places, false) end
for class, tag in pairs(virtual) do
  if tag > tonumber(call('GET', VT .. class) or 0) then call('SET', VT .. class, tag) end
end

local reply = { #expired }
if #granted > 0 then
  local counter = call('INCRBY', base .. 'fence', #granted) - #granted
  local jobs, leases, owners = {}, {}, {}
  for i, g in ipairs(granted) do
    jobs[i] = g[1]
    leases[2 * i - 1], leases[2 * i] = ends, g[1]
    owners[2 * i - 1] = g[1]
    owners[2 * i] = counter + i .. ':' .. g[2] .. ':' .. g[3] .. ':' .. g[4] .. ':00:::' .. worker
  end
  call('ZADD', LEASES, unpack(leases))
  call('HSET', OWNERS, unpack(owners))
  local reclaims = call('HMGET', RECLAIMS, unpack(jobs))
  for i, g in ipairs(granted) do
    local at = 6 * (i - 1) + 1
    reply[at + 1], reply[at + 2], reply[at + 3], reply[at + 4] = g[1], g[2], g[3], g[4]
    reply[at + 5], reply[at + 6] = counter + i, reclaims[i] or 0
  end
end
wake()
return reply
