-- Extends leases.
--
-- ARGV[3]: lease in ms. ARGV[4…]: (job, fence counter) × at most 500.
-- Returns a list of 1 (extended) and 0 (lost: another fence, ended, withdrawn, or expired and not yet taken back).
local ends = now + tonumber(ARGV[3])
local jobs, counters = {}, {}
for i = 4, #ARGV, 2 do
  jobs[#jobs + 1], counters[#counters + 1] = ARGV[i], ARGV[i + 1]
end
if #jobs == 0 then return {} end
local owners = call('HMGET', OWNERS, unpack(jobs))
local deadlines = call('ZMSCORE', LEASES, unpack(jobs))
local reply, leases, rewritten = {}, {}, {}
for i, job in ipairs(jobs) do
  reply[i] = 0
  if owners[i] and deadlines[i] and tonumber(deadlines[i]) > now then
    local counter, mark = match(owners[i], '^(%d+):%d+(.)')
    if counter == counters[i] then
      local r
      if mark ~= '+' then r = record(owners[i]) end
      if not (r and r.withdrawn) then
        reply[i] = 1
        leases[#leases + 1], leases[#leases + 2] = ends, job
        if r and not r.renewed then
          r.renewed = true
          rewritten[#rewritten + 1], rewritten[#rewritten + 2] = job, written(r)
        end
      end
    end
  end
end
if #leases > 0 then call('ZADD', LEASES, unpack(leases)) end
if #rewritten > 0 then call('HSET', OWNERS, unpack(rewritten)) end
return reply
