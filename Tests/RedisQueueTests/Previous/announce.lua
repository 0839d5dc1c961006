-- Says that a worker lives; one that has not said so for 15 seconds counts no more.
--
-- ARGV[3]: worker, ARGV[4]: the sessions it can run at once; 0: it leaves. ARGV[5]: ms it counts from now.
local worker, slots = ARGV[3], tonumber(ARGV[4])
local silent = call('ZRANGEBYSCORE', WORKERS, '-inf', now, 'LIMIT', 0, 64)
if slots == 0 then silent[#silent + 1] = worker end
if #silent > 0 then
  call('ZREM', WORKERS, unpack(silent))
  call('HDEL', WORKER_SLOTS, unpack(silent))
end
if slots > 0 then
  call('ZADD', WORKERS, now + tonumber(ARGV[5]), worker)
  call('HSET', WORKER_SLOTS, worker, slots)
end
return 0
