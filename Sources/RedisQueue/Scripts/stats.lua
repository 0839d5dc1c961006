-- The numbers that are kept for the whole shard.
--
-- Returns { server ms, leased, taken back, finished, set aside, live workers, their slots }.
local counts = call('HMGET', STATE, 'reaped', 'finished')
local workers = call('ZRANGEBYSCORE', WORKERS, '(' .. now, '+inf')
local slots = 0
if #workers > 0 then
  for _, count in ipairs(call('HMGET', WORKER_SLOTS, unpack(workers))) do slots = slots + tonumber(count or 0) end
end
return {
  now, call('ZCARD', LEASES), tonumber(counts[1] or 0), tonumber(counts[2] or 0), call('ZCARD', POISON), #workers, slots
}
