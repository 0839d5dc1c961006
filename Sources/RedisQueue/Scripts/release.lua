-- Shared by claim (which takes back expired leases), complete and give_back.
--
-- Ends leases: jobs and their parsed records, at most 1,000. `completed`: the work is done, so a job is ready again
-- only if someone asked for that meanwhile; otherwise it is ready again at its old due time, unless it was withdrawn. Frees
-- the slots, makes the mailbox's parked jobs ready and gives the profile its turns back.
local function release(jobs, records, completed)
  if #jobs == 0 then return end
  call('ZREM', LEASES, unpack(jobs))
  call('HDEL', OWNERS, unpack(jobs))
  local slots, profiles, lanes = {}, {}, {}
  for i, job in ipairs(jobs) do
    local r = records[i]
    local mailbox, kind = parts(job)
    call('ZREM', SLOTS_OF_MAILBOX .. mailbox, job)
    local key = SLOTS_OF_PROFILE .. r.profile .. ':' .. kind
    local members = slots[key] or {}
    slots[key] = members
    members[#members + 1] = job
    local mailboxes = profiles[r.profile] or {}
    profiles[r.profile] = mailboxes
    mailboxes[mailbox] = true

    local class, due
    if completed or r.withdrawn == '1' then
      if r.again ~= '' then class, due = r.again, r.again_due end
    else
      class, due = r.class, r.due
      if r.again ~= '' and r.again < class then class = r.again end
    end
    if class then
      local of_profile = lanes[r.profile] or {}
      lanes[r.profile] = of_profile
      local entries = of_profile[class] or {}
      of_profile[class] = entries
      entries[#entries + 1], entries[#entries + 2] = due, job
    end
  end
  for key, members in pairs(slots) do call('ZREM', key, unpack(members)) end
  for profile, mailboxes in pairs(profiles) do
    reopen(profile)
    if call('EXISTS', PARKED .. profile) == 1 then
      for mailbox in pairs(mailboxes) do
        unpark(profile, call('ZRANGEBYLEX', PARKED .. profile, '[' .. mailbox .. 'a', '[' .. mailbox .. 'z'))
      end
      if call('EXISTS', PARKED .. profile) == 0 then call('SREM', PARKED_IN, profile) end
    end
    for class, entries in pairs(lanes[profile] or {}) do make_ready(class, profile, entries) end
  end
end
