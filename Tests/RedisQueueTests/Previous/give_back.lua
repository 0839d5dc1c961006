-- Ends leases whose work was not done: the jobs are ready at once, at their old due times, and no reclaim is counted.
--
-- ARGV[3…]: (job, fence counter) × at most 500.
-- Returns a list of 1 (ended) and 0 (lost before: another fence or none).
local reply, ended, records = held_of_arguments(true)
release(ended, records, false)
wake()
return reply
