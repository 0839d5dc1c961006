-- Removes jobs that must not run any more: those that wait or are set aside are gone, leased ones are flagged, so that
-- their renewal says lost and they are not ready again when the lease ends. A wish to run under another profile stays.
--
-- ARGV[3…]: profile, count, then count jobs; repeated. At most 500 jobs. Returns the jobs that are still leased.
local leased, rewritten = {}, {}
local any_poisoned = call('EXISTS', POISON) == 1
local i = 3
while i <= #ARGV do
  local profile, count = ARGV[i], tonumber(ARGV[i + 1])
  local jobs, of_kind = {}, {}
  for n = 1, count do
    local job = ARGV[i + 1 + n]
    jobs[n] = job
    local kind = match(job, '%a')
    local list = of_kind[kind] or {}
    of_kind[kind] = list
    list[#list + 1] = job
  end
  i = i + 2 + count
  for kind, list in pairs(of_kind) do
    for class = 0, 3 do call('ZREM', READY .. class .. kind .. ':' .. profile, unpack(list)) end
  end
  if call('EXISTS', PARKED .. profile) == 1 then
    for _, job in ipairs(jobs) do
      local member = parked_of_job(profile, job)
      if member then call('ZREM', PARKED .. profile, member) end
    end
  end
  call('HDEL', RECLAIMS, unpack(jobs))
  if any_poisoned then
    call('ZREM', POISON, unpack(jobs))
    call('HDEL', POISON_OF, unpack(jobs))
  end
  for n, owner in ipairs(call('HMGET', OWNERS, unpack(jobs))) do
    if owner then
      local r = record(owner)
      r.withdrawn = true
      if r.again_profile == profile then r.again = nil end
      leased[#leased + 1] = jobs[n]
      rewritten[#rewritten + 1], rewritten[#rewritten + 2] = jobs[n], written(r)
    end
  end
end
if #rewritten > 0 then call('HSET', OWNERS, unpack(rewritten)) end
return leased
