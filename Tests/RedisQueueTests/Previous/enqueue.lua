-- Makes sure that jobs are in the queue: absent becomes ready; ready or parked in a less urgent class moves up, keeping
-- the earlier due time; leased is marked `again` by class 0 or 1, and by any class under another profile; set aside stays
-- so.
--
-- ARGV[3…]: profile, count, then count × (job, class, due in ms); repeated. At most 500 jobs, no job twice.
-- Returns how many were absent.
local jobs, profiles = {}, {}
local i = 3
while i <= #ARGV do
  profiles[#profiles + 1] = ARGV[i]
  for n = 1, tonumber(ARGV[i + 1]) do jobs[#jobs + 1] = ARGV[i + 3 * n - 1] end
  i = i + 2 + 3 * tonumber(ARGV[i + 1])
end
if #jobs == 0 then return 0 end
local owners = call('HMGET', OWNERS, unpack(jobs))
local set_aside = call('EXISTS', POISON) == 1 and call('ZMSCORE', POISON, unpack(jobs)) or {}
-- Every profile with jobs stands in `profiles`, which statistics and repair walk through.
for n, text in ipairs(call('HMGET', PROFILES, unpack(profiles))) do
  if not text then call('HSET', PROFILES, profiles[n], '0:0:0:1:0:0:0::') end
end

local absent, rewritten = 0, {}
local position = 0
i = 3
while i <= #ARGV do
  local profile, count = ARGV[i], tonumber(ARGV[i + 1])
  local waiting = {}
  for n = 1, count do
    local at = i + 3 * n - 1
    local job, class, due = ARGV[at], ARGV[at + 1], ARGV[at + 2]
    local owner = owners[position + n]
    if owner then
      local elsewhere = match(owner, '^%d+:(%d+)') ~= profile
      if class <= '1' or elsewhere then
        local r = record(owner)
        if not r.again or class < r.again or (elsewhere and r.again_profile ~= profile) then
          r.again, r.again_profile, r.again_due = class, profile, due
          rewritten[#rewritten + 1], rewritten[#rewritten + 2] = job, written(r)
        end
      end
    elseif not set_aside[position + n] then
      local kind = match(job, '%a')
      local list = waiting[kind] or {}
      waiting[kind] = list
      list[#list + 1] = { job, tonumber(class), due }
    end
  end
  position = position + count
  i = i + 2 + 3 * count

  for kind, entries in pairs(waiting) do
    local names = {}
    for n, entry in ipairs(entries) do names[n] = entry[1] end
    local scores = {}
    for class = 0, 3 do scores[class] = call('ZMSCORE', READY .. class .. kind .. ':' .. profile, unpack(names)) end
    local has_parked = call('EXISTS', PARKED .. profile) == 1
    local added, removed = {}, {}
    local function move(list, class, one, two)
      local lane = list[class] or {}
      list[class] = lane
      lane[#lane + 1] = one
      lane[#lane + 1] = two
    end
    for n, entry in ipairs(entries) do
      local job, wish, due = entry[1], entry[2], entry[3]
      local present
      for class = 0, 3 do
        local since = scores[class][n]
        if since then
          present = true
          if wish < class then
            move(removed, class, job)
            move(added, wish, format('%.0f', math.min(since, due)), job)
          end
          break
        end
      end
      if not present and has_parked then
        local member, class, since = parked_of_job(profile, job)
        if member then
          present = true
          if wish < class then
            call('ZREM', PARKED .. profile, member)
            call('ZADD', PARKED .. profile, 0,
              job .. ':' .. wish .. ':' .. format('%.0f', math.min(since, due)))
          end
        end
      end
      if not present then
        absent = absent + 1
        move(added, wish, due, job)
      end
    end
    for class, lane in pairs(removed) do call('ZREM', READY .. class .. kind .. ':' .. profile, unpack(lane)) end
    for class, lane in pairs(added) do make_ready(class, kind, profile, lane) end
  end
end
if #rewritten > 0 then call('HSET', OWNERS, unpack(rewritten)) end
wake()
return absent
