-- Opens an epoch if it is greater than the one held; an equal or older one changes nothing, so two leaders converge.
--
-- KEYS[1]: <prefix>:{<shard>}:epoch (hash). ARGV[1]: epoch, ARGV[2]: the server's run id, ARGV[3]: ms before claims,
--   ARGV[4]: the number of shards. Another number than the one held changes nothing either.
-- Returns { epoch, run id, number of shards } as held afterwards.
local call = redis.call
local held = call('HMGET', KEYS[1], 'epoch', 'run_id', 'shards')
if held[1] and tonumber(held[1]) >= tonumber(ARGV[1]) then return held end
if held[3] and held[3] ~= ARGV[4] then return held end
local clock = call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
call('HSET', KEYS[1], 'epoch', ARGV[1], 'run_id', ARGV[2], 'open_at', now + tonumber(ARGV[3]), 'shards', ARGV[4],
  'fence', 0)
return { ARGV[1], ARGV[2], ARGV[4] }
