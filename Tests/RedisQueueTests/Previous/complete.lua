-- Ends leases whose outcome is committed. Their reclaims are forgotten; a job marked `again` is ready at once.
--
-- ARGV[3…]: (job, fence counter) × at most 500.
-- Returns a list of 1 (ended) and 0 (lost before: another fence or none).
local reply, ended, records = held_of_arguments(false)
if #ended > 0 then
  release(ended, records, true)
  call('HINCRBY', STATE, 'finished', #ended)
  if call('EXISTS', RECLAIMS) == 1 then call('HDEL', RECLAIMS, unpack(ended)) end
end
wake()
return reply
