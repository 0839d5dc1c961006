-- Removes jobs that must not run any more: those that wait are gone, leased ones are flagged, so that their renewal
-- says lost and they are not ready again when the lease ends.
--
-- ARGV[3…]: profile, count, then count jobs; repeated. At most 500 jobs. Returns the jobs that are still leased.
local leased, rewritten = {}, {}
local i = 3
while i <= #ARGV do
  local profile, count = ARGV[i], tonumber(ARGV[i + 1])
  local jobs = {}
  for n = 1, count do jobs[n] = ARGV[i + 1 + n] end
  i = i + 2 + count
  for class = 0, 3 do call('ZREM', READY .. class .. ':' .. profile, unpack(jobs)) end
  if call('EXISTS', PARKED .. profile) == 1 then
    for _, job in ipairs(jobs) do
      local member = parked_of_job(profile, job)
      if member then call('ZREM', PARKED .. profile, member) end
    end
    if call('EXISTS', PARKED .. profile) == 0 then call('SREM', PARKED_IN, profile) end
  end
  call('HDEL', RECLAIMS, unpack(jobs))
  for n, owner in ipairs(call('HMGET', OWNERS, unpack(jobs))) do
    if owner then
      local r = record(owner)
      r.withdrawn, r.again, r.again_due = '1', '', ''
      leased[#leased + 1] = jobs[n]
      rewritten[#rewritten + 1], rewritten[#rewritten + 2] = jobs[n], written(r)
    end
  end
end
if #rewritten > 0 then call('HSET', OWNERS, unpack(rewritten)) end
return leased
