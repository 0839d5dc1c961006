-- Shared by claim (which takes back expired leases), complete and give_back.

-- The jobs of `ARGV[3…]` (job, fence counter, …) that are still held with that fence, their records where they are
-- needed, and a reply of 1 and 0 for each.
local function held_of_arguments(whole)
  local jobs, counters = {}, {}
  for i = 3, #ARGV, 2 do
    jobs[#jobs + 1], counters[#counters + 1] = ARGV[i], ARGV[i + 1]
  end
  local reply, ended, records = {}, {}, {}
  if #jobs == 0 then return reply, ended, records end
  local seen = {}
  local owners = call('HMGET', OWNERS, unpack(jobs))
  for i, job in ipairs(jobs) do
    local owner = owners[i]
    reply[i] = 0
    if owner and not seen[job] then
      local counter, profile, mark = match(owner, '^(%d+):(%d+)(.)')
      if counter == counters[i] then
        seen[job] = true
        reply[i] = 1
        ended[#ended + 1] = job
        records[#records + 1] = (whole or mark == '*') and record(owner) or { profile = profile }
      end
    end
  end
  return reply, ended, records
end

-- Ends leases: jobs and their parsed records, at most 1,000. `completed`: the work is done, so a job is ready again
-- only if someone asked for that meanwhile; otherwise it is ready again at its old due time, unless it was withdrawn or
-- is set aside. Frees the slots, makes the mailboxes' parked jobs ready and gives the profiles their turns back.
local function release(jobs, records, completed)
  if #jobs == 0 then return end
  call('ZREM', LEASES, unpack(jobs))
  call('HDEL', OWNERS, unpack(jobs))
  local mailboxes, profiles, freed, lanes = {}, {}, {}, {}
  for i, job in ipairs(jobs) do
    local r = records[i]
    mailboxes[i] = match(job, '^%d+')
    local slots = freed[r.profile]
    if not slots then
      slots = {}
      freed[r.profile] = slots
      profiles[#profiles + 1] = r.profile
    end
    slots[#slots + 1] = job

    local class, due, profile
    if not r.poisoned then
      if r.again and (completed or r.withdrawn or r.again_profile ~= r.profile) then
        class, due, profile = r.again, r.again_due, r.again_profile
      elseif not completed and not r.withdrawn then
        class, due, profile = r.class, r.due, r.profile
        if r.again and r.again < class then class = r.again end
      end
    end
    if class then
      local lane = class .. match(job, '%a') .. profile
      local entries = lanes[lane] or {}
      lanes[lane] = entries
      entries[#entries + 1], entries[#entries + 2] = due, job
    end
  end
  for profile, members in pairs(freed) do call('ZREM', SLOTS .. profile, unpack(members)) end

  local sessions = call('HMGET', BUSY, unpack(mailboxes))
  local left, gone, set, parked = {}, {}, {}, nil
  for i, mailbox in ipairs(mailboxes) do
    local now_left = left[mailbox] or sessions[i]
    if now_left then left[mailbox] = without(now_left, sub(jobs[i], #mailbox + 1)) end
  end
  for mailbox, rest in pairs(left) do
    if rest ~= '' and string.find(rest, '!', 1, true) then
      parked = parked or {}
      parked[#parked + 1] = { mailbox, string.gsub(rest, '[^!%d]%d*', '') }
      rest = string.gsub(rest, '!%d*', '')
    end
    if rest == '' then
      gone[#gone + 1] = mailbox
    else
      set[#set + 1], set[#set + 2] = mailbox, rest
    end
  end
  if #gone > 0 then call('HDEL', BUSY, unpack(gone)) end
  if #set > 0 then call('HSET', BUSY, unpack(set)) end

  reopen(profiles)
  for _, entry in ipairs(parked or {}) do
    for profile in string.gmatch(entry[2], '%d+') do unpark(profile, parked_at(profile, entry[1])) end
  end
  for lane, entries in pairs(lanes) do
    make_ready(tonumber(sub(lane, 1, 1)), sub(lane, 2, 2), sub(lane, 3), entries)
  end
end
