-- Jobs that were set aside, oldest first.
--
-- ARGV[3]: how many, 1…1000. Returns (job, profile, reclaims, since in ms, worker) × n.
local jobs = call('ZRANGE', POISON, 0, tonumber(ARGV[3]) - 1, 'WITHSCORES')
local reply = {}
for i = 1, #jobs, 2 do
  local profile, reclaims, worker = match(call('HGET', POISON_OF, jobs[i]) or '0:0:', '^(%d+):(%d+):(.*)$')
  for _, value in ipairs({ jobs[i], profile, reclaims, jobs[i + 1], worker }) do reply[#reply + 1] = value end
end
return reply
