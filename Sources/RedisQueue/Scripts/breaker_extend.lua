-- Keeps a probe. ARGV: member of KEYS[2], token, probe hold in ms, memory in ms. Returns 1, or 0 when it is the probe no
-- more. One that is late but was not replaced is the probe still.
local until_ms = now + tonumber(ARGV[3])
if not is_open or b.probe ~= ARGV[2] then return 0 end
call('HSET', KEYS[1], 'probe_until', until_ms)
keep(math.max(b.probe_at, until_ms), tonumber(ARGV[4]))
call('ZADD', KEYS[2], math.max(b.probe_at, until_ms) + tonumber(ARGV[4]), ARGV[1])
return 1
