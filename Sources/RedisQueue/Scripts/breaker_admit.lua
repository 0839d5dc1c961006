-- May a session connect?
--
-- ARGV: member of KEYS[2], lane `<profile>:<i|o>`, token, interactive 0|1, probe hold in ms, memory in ms.
-- Returns { 'go', row, 1 if a recovery waits to be told } | { 'probe' } | { 'wait', 1 if first of its lane, view… }.
local member, lane, token, interactive = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local hold, memory = tonumber(ARGV[5]), tonumber(ARGV[6])
if not is_open then
  return { 'go', b.row, (b.told and tonumber(b.told) <= now) and 1 or 0 }
end
if b.probe_until <= now then b.probe = '' end
if b.probe == '' and (interactive or b.probe_at <= now) then
  call('HSET', KEYS[1], 'probe', token, 'probe_until', now + hold, 'early', b.probe_at > now and 1 or 0)
  keep(math.max(b.probe_at, now + hold), memory)
  call('ZADD', KEYS[2], math.max(b.probe_at, now + hold) + memory, member)
  return { 'probe' }
end
local first = 0
if not interactive and call('HGET', KEYS[1], 'l:' .. lane) ~= 'h' then
  call('HSET', KEYS[1], 'l:' .. lane, 'h')
  first = 1
end
return { 'wait', first, view() }
