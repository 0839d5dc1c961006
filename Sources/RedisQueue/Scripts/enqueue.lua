-- Makes sure that jobs are in the queue: absent becomes ready; ready or parked in a less urgent class moves up, keeping
-- the earlier due time; leased is marked `again` by class 0 or 1 and left alone by the others.
--
-- ARGV[3…]: profile, count, then count × (job, class, due in ms); repeated. At most 500 jobs, no job twice.
-- Returns how many were absent.
local jobs = {}
local i = 3
while i <= #ARGV do
  for n = 1, tonumber(ARGV[i + 1]) do jobs[#jobs + 1] = ARGV[i + 3 * n - 1] end
  i = i + 2 + 3 * tonumber(ARGV[i + 1])
end
if #jobs == 0 then return 0 end
local owners = call('HMGET', OWNERS, unpack(jobs))

local absent, rewritten = 0, {}
local position = 0
i = 3
while i <= #ARGV do
  local profile, count = ARGV[i], tonumber(ARGV[i + 1])
  local waiting = {}
  for n = 1, count do
    local at = i + 3 * n - 1
    local owner = owners[position + n]
    if not owner then
      waiting[#waiting + 1] = { job = ARGV[at], class = tonumber(ARGV[at + 1]), due = ARGV[at + 2] }
    elseif tonumber(ARGV[at + 1]) <= 1 then
      local r = record(owner)
      if r.again == '' or ARGV[at + 1] < r.again then
        r.again, r.again_due = ARGV[at + 1], ARGV[at + 2]
        rewritten[#rewritten + 1], rewritten[#rewritten + 2] = ARGV[at], written(r)
      end
    end
  end
  position = position + count
  i = i + 2 + 3 * count

  if #waiting > 0 then
    local names = {}
    for n, entry in ipairs(waiting) do names[n] = entry.job end
    local scores = {}
    for class = 0, 3 do scores[class] = call('ZMSCORE', READY .. class .. ':' .. profile, unpack(names)) end
    local has_parked = call('EXISTS', PARKED .. profile) == 1
    local added, removed = {}, {}
    local function move(list, class, ...)
      local lane = list[class] or {}
      list[class] = lane
      for _, value in ipairs({ ... }) do lane[#lane + 1] = value end
    end
    for n, entry in ipairs(waiting) do
      local present
      for class = 0, 3 do
        local due = scores[class][n]
        if due then
          present = true
          if entry.class < class then
            move(removed, class, entry.job)
            move(added, entry.class, math.min(tonumber(due), tonumber(entry.due)), entry.job)
          end
          break
        end
      end
      if not present and has_parked then
        local member, class, due = parked_of_job(profile, entry.job)
        if member then
          present = true
          local to = math.min(class, entry.class)
          local earlier = string.format('%.0f', math.min(tonumber(due), tonumber(entry.due)))
          if call('EXISTS', SLOTS_OF_MAILBOX .. parts(entry.job)) == 0 then
            -- Its mailbox is free after all (it was leased under another profile).
            call('ZREM', PARKED .. profile, member)
            move(added, to, earlier, entry.job)
          elseif to < class then
            call('ZREM', PARKED .. profile, member)
            call('ZADD', PARKED .. profile, 0, entry.job .. ':' .. to .. ':' .. earlier)
          end
        end
      end
      if not present then
        absent = absent + 1
        move(added, entry.class, entry.due, entry.job)
      end
    end
    for class, lane in pairs(removed) do call('ZREM', READY .. class .. ':' .. profile, unpack(lane)) end
    for class, lane in pairs(added) do make_ready(class, profile, lane) end
  end
end
if #rewritten > 0 then call('HSET', OWNERS, unpack(rewritten)) end
wake()
return absent
