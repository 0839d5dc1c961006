-- Where jobs are. For people, not for the hot path.
--
-- ARGV[3…]: (job, profile) × at most 100.
-- Returns for each { state, profile, class, worker, fence counter, lease end, due, blocked by }; '' stands for nothing.
local reply = {}
for i = 3, #ARGV, 2 do
  local job, profile = ARGV[i], ARGV[i + 1]
  local found = { 'absent', '', '', '', '', '', '', '' }
  local owner = call('HGET', OWNERS, job)
  if owner then
    local r = record(owner)
    found = { 'leased', r.profile, '', r.worker, r.counter, call('ZSCORE', LEASES, job) or '', '', '' }
  else
    local member, class, due = parked_of_job(profile, job)
    if member then found = { 'parked', profile, tostring(class), '', '', '', due, 'busy-mailbox' } end
    for lane = 0, 3 do
      local score = call('ZSCORE', READY .. lane .. ':' .. profile, job)
      if score then
        local p = call('HMGET', PROFILE .. profile, 'limit', 'paused')
        local why = 'turn'
        if p[2] == '1' then why = 'paused'
        elseif (p[1] or '0') == '0' or call('ZSCORE', FULL, lane .. ':' .. profile) then why = 'limit' end
        found = { 'ready', profile, tostring(lane), '', '', '', score, why }
        break
      end
    end
  end
  reply[#reply + 1] = found
end
return reply
