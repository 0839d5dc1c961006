-- Shared by the scripts of one breaker.
--
-- KEYS[1]: <prefix>:breaker:{<shard>}:<host:port> (a profile's: halt for breaker), a hash that is there only while something went wrong:
--   row, from: failures in a row, and the mailboxes they came from (`;<id>;<id>;`)
--   code, words: of the last failure
--   since, tries, probe_at: while it is open: from when, failed probes, when the next regular one is due
--   probe, probe_until, early: the probe under way: its token, when it frees itself, 1 if it came before probe_at
--   l:<profile>:<i|o>: a lane that failed (f) or was refused (h) and has not been told of a recovery
--   told: from the recovery on: until when somebody is telling the lanes
-- KEYS[2]: <prefix>:breakers:{<shard>}, a zset of the open ones: host:port → when it is forgotten.
local b = {}
local read = call('HMGET', KEYS[1], 'row', 'since', 'tries', 'probe_at', 'probe', 'probe_until', 'early', 'code', 'words',
  'told', 'from')
b.row, b.since, b.tries, b.probe_at = tonumber(read[1] or 0), tonumber(read[2] or 0), tonumber(read[3] or 0),
  tonumber(read[4] or 0)
b.probe, b.probe_until, b.early, b.code, b.words = read[5] or '', tonumber(read[6] or 0), read[7] == '1', read[8] or '',
  read[9] or ''
b.told, b.from = read[10], read[11] or ';'
local is_open = b.since > 0

-- Keeps the hash for `memory` ms after `moment`.
local function keep(moment, memory) call('PEXPIRE', KEYS[1], math.max(1, moment - now) + memory) end

-- The breaker as callers see it: since, tries, ms to the next probe, probing, ms to wait, code, words.
local function view()
  local probing = b.probe ~= '' and b.probe_until > now
  local next_probe = math.max(0, b.probe_at - now)
  local wait = next_probe
  if probing then wait = b.probe_until - now end
  return b.since, b.tries, next_probe, probing and 1 or 0, wait, b.code, b.words
end
