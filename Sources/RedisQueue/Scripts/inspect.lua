-- Where jobs are. For people, not for the hot path.
--
-- ARGV[3…]: (job, profile) × at most 100.
-- Returns { { live workers, their slots, leased }, then for each job { state, profile, class, worker, fence counter, lease
--   end, due, blocked by, until, leased since } }; '' stands for nothing.
local workers = call('ZRANGEBYSCORE', WORKERS, '(' .. now, '+inf')
local slots = 0
if #workers > 0 then
  for _, count in ipairs(call('HMGET', WORKER_SLOTS, unpack(workers))) do slots = slots + tonumber(count or 0) end
end
local reply = { { #workers, slots, call('ZCARD', LEASES) } }

-- What keeps a ready job waiting, as far as the shard knows, and until when.
local function reason(job, class, profile)
  local text = call('HGET', PROFILES, profile)
  local p, kind = settings(text), match(job, '%a')
  if p.paused then return 'paused', '' end
  if p.limit == 0 then return 'limit', '' end
  local hold = held_until(p, class, kind)
  if hold > now then
    local why_in, why_out = match(text, ':([^:]*):([^:]*)$')
    local incoming = kind == 'p' or (kind == 't' and p.held_in == p.held_test)
    return incoming and why_in or why_out, format('%.0f', hold)
  end
  if on_profile(p, kind) and room(p, profile) <= 0 then return 'limit', '' end
  return 'turn', ''
end

for i = 3, #ARGV, 2 do
  local job, profile = ARGV[i], ARGV[i + 1]
  local found = { 'absent', '', '', '', '', '', '', '', '', '' }
  local owner, aside = call('HGET', OWNERS, job), call('HGET', POISON_OF, job)
  if owner then
    local r = record(owner)
    found = { 'leased', r.profile, '', r.worker, r.counter, call('ZSCORE', LEASES, job) or '', '', '', '', r.since }
  elseif aside then
    local its, _, worker = match(aside, '^(%d+):(%d+):(.*)$')
    found = { 'poisoned', its, '', worker, '', '', '', '', '', '' }
  else
    local member, class, due = parked_of_job(profile, job)
    if member then found = { 'parked', profile, tostring(class), '', '', '', due, 'busy-mailbox', '', '' } end
    for lane = 0, 3 do
      local score = call('ZSCORE', READY .. lane .. match(job, '%a') .. ':' .. profile, job)
      if score then
        local why, until_ms = reason(job, lane, profile)
        found = { 'ready', profile, tostring(lane), '', '', '', score, why, until_ms, '' }
        break
      end
    end
  end
  reply[#reply + 1] = found
end
return reply
