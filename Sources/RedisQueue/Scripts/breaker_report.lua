-- How a visit went.
--
-- ARGV: member of KEYS[2], lane `<profile>:<i|o>`, token or '', `works` | `failed` | `unknown`, mailbox, code, words,
--   failures, mailboxes, failures of few, first probe in ms, longest probe in ms, memory in ms.
-- Returns { 'closed', row } | { 'recovered', 1 if it was open } | { 'opened', view… } |
--   { 'open', former code, view… }.
local member, lane, token, result, mailbox = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local code, words = ARGV[6], ARGV[7]
local failures, mailboxes, of_few = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local first, longest, memory = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])

-- Ends the row of failures, and the opening if there is one. Lanes stay until they have been told.
local function recover()
  call('HDEL', KEYS[1], 'row', 'from', 'since', 'tries', 'probe_at', 'probe', 'probe_until', 'early', 'code', 'words')
  call('ZREM', KEYS[2], member)
  if call('HLEN', KEYS[1]) > (b.told and 1 or 0) then
    call('HSET', KEYS[1], 'told', 0)
    keep(now, memory)
  else
    call('DEL', KEYS[1])
  end
end

if not is_open then
  if result == 'works' and b.row > 0 then
    recover()
    return { 'recovered', 0 }
  end
  if result ~= 'failed' then return { 'closed', b.row } end
  b.row, b.code, b.words = b.row + 1, code, words
  local _, count = string.gsub(b.from, '%d+', '')
  if count < mailboxes and not string.find(b.from, ';' .. mailbox .. ';', 1, true) then
    b.from, count = b.from .. mailbox .. ';', count + 1
  end
  call('HSETNX', KEYS[1], 'l:' .. lane, 'f')
  -- A recovery that has not been told to all yet is none any more; its lanes are told of the next one.
  call('HDEL', KEYS[1], 'told')
  if (b.row < failures or count < mailboxes) and b.row < of_few then
    call('HSET', KEYS[1], 'row', b.row, 'from', b.from, 'code', code, 'words', words)
    keep(now, memory)
    return { 'closed', b.row }
  end
  b.since, b.tries, b.probe_at = now, 0, now + first
  call('HSET', KEYS[1], 'row', b.row, 'from', b.from, 'code', code, 'words', words, 'since', now, 'tries', 0,
    'probe_at', b.probe_at)
  keep(b.probe_at, memory)
  call('ZADD', KEYS[2], b.probe_at + memory, member)
  return { 'opened', view() }
end

local former = b.code
if token == '' or token ~= b.probe then
  if result == 'failed' then call('HSETNX', KEYS[1], 'l:' .. lane, 'f') end
  return { 'open', former, view() }
end
if result == 'works' then
  recover()
  return { 'recovered', 1 }
end
call('HDEL', KEYS[1], 'probe', 'probe_until', 'early')
b.probe, b.probe_until = '', 0
if result == 'failed' then
  b.code, b.words = code, words
  call('HSETNX', KEYS[1], 'l:' .. lane, 'f')
  -- A person who tries again and again does not delay the regular probe.
  if not (b.early and b.probe_at > now) then
    b.tries = b.tries + 1
    b.probe_at = now + math.min(longest, first * 2 ^ math.min(b.tries, 30))
  end
  call('HSET', KEYS[1], 'code', code, 'words', words, 'tries', b.tries, 'probe_at', b.probe_at)
end
keep(b.probe_at, memory)
call('ZADD', KEYS[2], math.max(b.probe_at, now) + memory, member)
return { 'open', former, view() }
