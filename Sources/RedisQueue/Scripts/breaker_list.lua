-- The open breakers of a shard, oldest first.
--
-- KEYS[1]: <prefix>:breakers:{<shard>}. ARGV: what their own keys begin with, `<prefix>:breaker:{<shard>}:`; at most how
-- many. Returns { now, { member, since, tries, probe_at, probing until, code, words } … }. Removes those that are
-- forgotten.
call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local found = {}
for _, member in ipairs(call('ZRANGE', KEYS[1], 0, 9999)) do
  local f = call('HMGET', ARGV[1] .. member, 'since', 'tries', 'probe_at', 'probe_until', 'code', 'words')
  if f[1] then
    found[#found + 1] = { member, tonumber(f[1]), tonumber(f[2] or 0), tonumber(f[3] or 0), tonumber(f[4] or 0),
      f[5] or '', f[6] or '' }
  else
    call('ZREM', KEYS[1], member)
  end
end
table.sort(found, function(a, c) return a[2] < c[2] or a[2] == c[2] and a[1] < c[1] end)
local reply = { now }
for i = 1, math.min(#found, tonumber(ARGV[2])) do reply[#reply + 1] = found[i] end
return reply
