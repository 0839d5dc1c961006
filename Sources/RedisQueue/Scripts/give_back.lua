-- Ends leases whose work was not done: the jobs are ready at once, at their old due times, and no reclaim is counted.
--
-- ARGV[3…]: (job, fence counter) × at most 500.
-- Returns a list of 1 (ended) and 0 (lost before: another fence or none).
local jobs, counters = {}, {}
for i = 3, #ARGV, 2 do
  jobs[#jobs + 1], counters[#counters + 1] = ARGV[i], ARGV[i + 1]
end
if #jobs == 0 then return {} end
local owners = call('HMGET', OWNERS, unpack(jobs))
local reply, ended, records, seen = {}, {}, {}, {}
for i, job in ipairs(jobs) do
  local r = owners[i] and record(owners[i])
  if r and r.counter == counters[i] and not seen[job] then
    seen[job] = true
    reply[i] = 1
    ended[#ended + 1], records[#records + 1] = job, r
  else
    reply[i] = 0
  end
end
release(ended, records, false)
wake()
return reply
