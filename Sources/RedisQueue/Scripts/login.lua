-- May a login begin?
--
-- KEYS[1]: <prefix>:login:{<shard>}:<host>|<egress>:failed, zset: token → when the login was refused.
-- KEYS[2]: the same with :taken, zset: token → when it was taken, of logins under way, or lost.
-- KEYS[3]: the same with :single, hash: token and until of the one proven login at a time; held, until when none.
-- KEYS[4]: <refused>, see above.
-- ARGV: token, proven 0|1, limit, window in ms, deadline in ms, mailbox, window of refusals in ms.
-- Returns { 'token' | 'free' | 'single' } or { 'wait', ms, 1 if only logins under way are waited for }.
local token, proven, limit = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3])
local window, deadline = tonumber(ARGV[4]), tonumber(ARGV[5])
if call('EXISTS', KEYS[4]) == 1 then
  tried(KEYS[4], ARGV[6], tonumber(ARGV[7]))
  -- What counts is how its latest login ended.
  call('ZREM', KEYS[4], ARGV[6])
end
call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - window)
local failed = call('ZCARD', KEYS[1])
local lost = call('ZCOUNT', KEYS[2], '-inf', now - deadline)

if proven then
  if failed + lost < limit then return { 'free' } end
  local held = call('HMGET', KEYS[3], 'token', 'until', 'held')
  local held_until = tonumber(held[3] or 0)
  if held_until > now then return { 'wait', held_until - now, 0 } end
  local single_until = tonumber(held[2] or 0)
  if held[1] and single_until > now then return { 'wait', single_until - now, 1 } end
  call('HSET', KEYS[3], 'token', token, 'until', now + deadline)
  call('PEXPIRE', KEYS[3], deadline)
  return { 'single' }
end

local taken = call('ZCARD', KEYS[2])
if failed + taken < limit then
  call('ZADD', KEYS[2], now, token)
  call('PEXPIRE', KEYS[2], window)
  return { 'token' }
end
local oldest = now
for i = 1, 2 do
  local head = call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')
  if head[2] then oldest = math.min(oldest, tonumber(head[2])) end
end
return { 'wait', math.max(1, oldest + window - now), taken > lost and 1 or 0 }
