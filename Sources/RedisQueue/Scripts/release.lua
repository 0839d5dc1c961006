-- Shared by claim (which takes back expired leases), complete and give_back.

-- The jobs of `ARGV[3…]` (job, fence counter, …) that are still held with that fence, their profiles, the records of those
-- of which more is to be known (`whole`: of all), by place, and a reply of 1 and 0 for each argument.
local function held_of_arguments(whole)
  local jobs, n = {}, 0
  for i = 3, #ARGV, 2 do
    n = n + 1
    jobs[n] = ARGV[i]
  end
  local reply, ended, profiles, records = {}, {}, {}, {}
  if n == 0 then return reply, ended, profiles, records end
  local seen, count = {}, 0
  local owners = call('HMGET', OWNERS, unpack(jobs))
  for i = 1, n do
    local job, owner = jobs[i], owners[i]
    reply[i] = 0
    if owner and not seen[job] then
      local counter, profile, mark = match(owner, '^(%d+):(%d+)(.)')
      if counter == ARGV[2 * i + 2] then
        seen[job] = true
        reply[i] = 1
        count = count + 1
        ended[count], profiles[count] = job, profile
        if whole or mark == '*' then records[count] = record(owner) end
      end
    end
  end
  return reply, ended, profiles, records
end

-- Ends leases: jobs, their profiles, and by place the parsed records of those of which more is to be known; at most 1,000.
-- `completed`: the work is done, so a job is ready again only if someone asked for that meanwhile; otherwise (then every
-- record is there) it is ready again at its old due time, unless it was withdrawn or is set aside. Frees the slots, makes
-- the mailboxes' parked jobs ready and gives the profiles their turns back.
local function release(jobs, profiles, records, completed)
  local count = #jobs
  if count == 0 then return end
  call('ZREM', LEASES, unpack(jobs))
  call('HDEL', OWNERS, unpack(jobs))
  local mailboxes, names, freed, lanes = {}, {}, {}, {}
  for i = 1, count do
    local job, its = jobs[i], profiles[i]
    mailboxes[i] = match(job, '^%d+')
    local slots = freed[its]
    if slots then
      slots[#slots + 1] = job
    else
      freed[its] = { job }
      names[#names + 1] = its
    end

    local r = records[i]
    if r and not r.poisoned then
      local class, due, profile
      if r.again and (completed or r.withdrawn or r.again_profile ~= its) then
        class, due, profile = r.again, r.again_due, r.again_profile
      elseif not completed and not r.withdrawn then
        class, due, profile = r.class, r.due, its
        if r.again and r.again < class then class = r.again end
      end
      if class then
        local lane = class .. match(job, '%a') .. profile
        local entries = lanes[lane] or {}
        lanes[lane] = entries
        entries[#entries + 1], entries[#entries + 2] = due, job
      end
    end
  end
  for profile, members in pairs(freed) do call('ZREM', SLOTS .. profile, unpack(members)) end

  -- Nearly every mailbox has this one session; the others are looked at one by one.
  local sessions = call('HMGET', BUSY, unpack(mailboxes))
  local left, gone, others, set, parked = {}, {}, {}, {}, nil
  for i = 1, count do
    local mailbox = mailboxes[i]
    local present, own = left[mailbox] or sessions[i], sub(jobs[i], #mailbox + 1)
    if present == own then
      gone[#gone + 1] = mailbox
      left[mailbox] = ''
    elseif present then
      if not left[mailbox] then others[#others + 1] = mailbox end
      left[mailbox] = without(present, own)
    end
  end
  for _, mailbox in ipairs(others) do
    local rest = left[mailbox]
    if string.find(rest, '!', 1, true) then
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

  reopen(names)
  for _, entry in ipairs(parked or {}) do
    for profile in string.gmatch(entry[2], '%d+') do unpark(profile, parked_at(profile, entry[1])) end
  end
  for lane, entries in pairs(lanes) do
    make_ready(tonumber(sub(lane, 1, 1)), sub(lane, 2, 2), sub(lane, 3), entries)
  end
end
