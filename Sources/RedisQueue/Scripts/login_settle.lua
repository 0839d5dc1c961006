-- How a permitted login ended.
--
-- KEYS as in login. ARGV: token, `token` | `free` | `single`, `accepted` | `refused` | `lost`, window in ms, hold in ms.
-- Returns 1.
local token, kind, result = ARGV[1], ARGV[2], ARGV[3]
local window, hold = tonumber(ARGV[4]), tonumber(ARGV[5])
if kind == 'token' and result ~= 'lost' then call('ZREM', KEYS[2], token) end
if result == 'refused' then
  call('ZADD', KEYS[1], now, token)
  -- More than any limit; a whole fleet that fails at once must not fill the memory.
  call('ZREMRANGEBYRANK', KEYS[1], 0, -2001)
  call('PEXPIRE', KEYS[1], window)
end
-- One whose time is over has lost its place to the next.
local held = call('HMGET', KEYS[3], 'token', 'until')
if kind == 'single' and held[1] == token and tonumber(held[2]) > now then
  call('HDEL', KEYS[3], 'token', 'until')
  if result == 'refused' then
    call('HSET', KEYS[3], 'held', now + hold)
    call('PEXPIRE', KEYS[3], hold)
  end
end
return 1
