-- The head of every script but `open`: checks the epoch, reads the server's clock, names the keys.
--
-- KEYS[1]: <prefix>:{<shard>}:epoch (hash: epoch, run_id, open_at in ms, fence counter, number of shards). Every other
--   key is built from it, so that all of them share its hash tag: <prefix>:{<shard>}:<epoch>:…
-- ARGV[1]: the epoch the caller works in. ARGV[2]: the run id of the server its connection reached.
-- Errors: EPOCHLOST none | server | other <epoch>.
--
-- A lane is one class of one profile. Its jobs lie in one zset per kind, `ready:<class><kind>:<profile>` (job → due), so
-- that a limit or a hold of one direction never has to be searched for job by job. Each class has a usual kind; `odd`
-- names the others of a lane. A lane with jobs stands in exactly one of `turn:<class>` (zset: profile → virtual start
-- time) and `full` (hash: profile → <class>:<tag>…), or in `wait` (zset: <class>:<profile> → when to look again) alone
-- while all its jobs are held.
--
-- `owners` (hash): job → <counter>:<profile> and then
--   :<class>:<due>:<holder>                                                                   a lease as it was given,
--   +<class>:<due>:<holder>                                                                   renewed at least once, or
--   *<class>:<due>:<renewed><withdrawn>:<again class>:<again profile>:<again due>:<holder>    anything more;
--   the holder is <worker>@<since when, in ms>.
-- `busy` (hash): mailbox → the sessions it has, as in its job ids (`p`, `s`, `s1`, `t`, in any order), and `!<profile>`
--   for each profile with jobs parked at it.
-- `slots:<profile>` (zset): the profile's leased jobs, 1 poll, 2 test, 3 send, so that each direction is one range.
-- `profiles` (hash): profile → <limit>:<POP3 counts on it>:<SMTP likewise>:<weight>:<paused>:<incoming held until ms>:
--   <outgoing held until>:<reason of the incoming hold>:<of the outgoing one>.
local call = redis.call
local held = call('HMGET', KEYS[1], 'epoch', 'run_id', 'open_at', 'fence', 'shards')
if not held[1] then return redis.error_reply('EPOCHLOST none') end
if held[2] ~= ARGV[2] then return redis.error_reply('EPOCHLOST server') end
if held[1] ~= ARGV[1] then return redis.error_reply('EPOCHLOST other ' .. held[1]) end

local shard = string.sub(KEYS[1], 1, -6)
local base = shard .. held[1] .. ':'
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local STATE, LEASES, OWNERS, BUSY = base .. 'state', base .. 'leases', base .. 'owners', base .. 'busy'
local PROFILES, SLOTS, RECLAIMS = base .. 'profiles', base .. 'slots:', base .. 'reclaims'
local TURN, READY, FULL, WAIT = base .. 'turn:', base .. 'ready:', base .. 'full', base .. 'wait'
local ODD, TAGS, PARKED = base .. 'odd', base .. 'tags', base .. 'parked:'
local POISON, POISON_OF = base .. 'poison', base .. 'poison-of'
local WORKERS, WORKER_SLOTS = base .. 'workers', base .. 'worker-slots'

local USUAL = { [0] = 't', 's', 'p', 't' }
-- Numbers that become arguments are written as text where it matters: the server prints a Lua number in floating point.
local SCORE = { p = '1', t = '2', s = '3' }
local concat, match, sub, floor, format = table.concat, string.match, string.sub, math.floor, string.format

-- The mailbox and the kind letter of a job id.
local function parts(job) return match(job, '^(%d+)(%a)') end

-- A lease's record, in full.
local function record(text)
  local counter, profile, mark, class, due, rest, since =
    match(text, '^(%d+):(%d+)([:+*])(%d):([^:]*):(.*)@(%d+)$')
  if mark ~= '*' then
    return { counter = counter, profile = profile, class = class, due = due, renewed = mark == '+', worker = rest,
      since = since }
  end
  local renewed, withdrawn, again, again_profile, again_due, worker =
    match(rest, '^(%d)(%d):(%d?):(%d*):([^:]*):(.*)$')
  return {
    counter = counter, profile = profile, class = class, due = due, renewed = renewed == '1',
    withdrawn = withdrawn == '1', again = again ~= '' and again or nil, again_profile = again_profile,
    again_due = again_due, worker = worker, since = since
  }
end

local function written(r)
  local head = r.counter .. ':' .. r.profile
  if not (r.again or r.withdrawn) then
    return concat({ head, r.renewed and '+' or ':', r.class, ':', r.due, ':', r.worker, '@', r.since })
  end
  local flags = (r.renewed and '1' or '0') .. (r.withdrawn and '1' or '0')
  return concat({ head, '*', r.class, ':', r.due, ':', flags, ':', r.again or '', ':', r.again and r.again_profile or '',
    ':', r.again and r.again_due or '', ':', r.worker, '@', r.since })
end

-- What the queue knows of a profile; one that nobody told of has limit 0.
local function settings(text)
  local limit, pop3, smtp, weight, paused, held_in, held_out, why_in, why_out =
    match(text or '0:0:0:1:0:0:0::', '^(%d+):(%d):(%d):(%d+):(%d):(%d+):(%d+):([^:]*):([^:]*)$')
  held_in, held_out = tonumber(held_in), tonumber(held_out)
  return {
    limit = tonumber(limit), pop3 = pop3 == '1', smtp = smtp == '1', weight = tonumber(weight), paused = paused == '1',
    held_in = held_in, held_out = held_out,
    -- Tests of a halted profile are not held: what halts it is their answer.
    held_test = math.max(why_in == 'halted' and 0 or held_in, why_out == 'halted' and 0 or held_out)
  }
end

-- Until when jobs of a kind and class are held, and 0 or less than now when they are not.
local function held_until(p, class, kind)
  if class == 0 then return 0 end
  if kind == 'p' then return p.held_in end
  if kind == 's' then return p.held_out end
  return p.held_test
end

-- Whether a session of this kind counts on the profile.
local function on_profile(p, kind)
  return (kind ~= 's' and p.pop3) or (kind ~= 'p' and p.smtp)
end

-- How many places the profile's own limit leaves; without a meaning when neither direction counts on it.
local function room(p, profile)
  if not p.free then
    local used = 0
    if p.pop3 and p.smtp then used = call('ZCARD', SLOTS .. profile)
    elseif p.pop3 then used = call('ZCOUNT', SLOTS .. profile, '1', '2')
    elseif p.smtp then used = call('ZCOUNT', SLOTS .. profile, '2', '3') end
    p.free = p.limit - used
  end
  return p.free
end

-- Whether something became takeable in this call; then `wake` tells the sleeping workers, once.
local woken = false
local function wake()
  if woken then call('PUBLISH', shard .. 'wake', '1') end
end

-- The virtual time of a class: the start of the latest turn it gave.
local virtual = {}
local function virtual_time(class)
  if not virtual[class] then virtual[class] = tonumber(call('HGET', STATE, 'vt' .. class) or 0) end
  return virtual[class]
end

-- Gives a lane its turn: not before the class's virtual time, and not before the end of the lane's last turn, or a
-- profile that empties and fills again at every turn would always be first.
local function line_up(class, profile, tag)
  tag = tag or call('HGET', TAGS, class .. ':' .. profile) or 0
  call('ZADD', TURN .. class, 'NX', math.max(virtual_time(class), tonumber(tag)), profile)
end

-- Brings lanes of profiles back that left because a limit was reached; the next visit counts again. One command when
-- there is nothing to bring back.
local function reopen(profiles)
  local gone = {}
  for i, lanes in ipairs(call('HMGET', FULL, unpack(profiles))) do
    if lanes then
      gone[#gone + 1] = profiles[i]
      for class, tag in string.gmatch(lanes, '(%d):(%S+)') do line_up(tonumber(class), profiles[i], tag) end
      woken = true
    end
  end
  if #gone > 0 then call('HDEL', FULL, unpack(gone)) end
end

-- Takes one lane out of `full`; returns its tag if it was there.
local function leave_full(class, profile)
  local lanes = call('HGET', FULL, profile)
  if not lanes then return nil end
  local rest, found = {}, nil
  for its, tag in string.gmatch(lanes, '(%d):(%S+)') do
    if tonumber(its) == class then found = tag else rest[#rest + 1] = its .. ':' .. tag end
  end
  if not found then return nil end
  if #rest == 0 then call('HDEL', FULL, profile) else call('HSET', FULL, profile, concat(rest, ' ')) end
  return found
end

-- Adds jobs of one kind (due, job, due, job, …; at most 2,000 elements) to a lane.
local function make_ready(class, kind, profile, entries)
  local jobs = READY .. class .. kind .. ':' .. profile
  local added = call('ZADD', jobs, unpack(entries))
  if added > 0 then woken = true end
  if call('ZCARD', jobs) == added then
    if kind ~= USUAL[class] then
      local name = class .. ':' .. profile
      local kinds = call('HGET', ODD, name) or ''
      if not string.find(kinds, kind, 1, true) then call('HSET', ODD, name, kinds .. kind) end
    end
    line_up(class, profile, leave_full(class, profile))
  end
end

-- The members of `parked:<profile>` are <job>:<class>:<due>, all of score 0, so they are in order of the job id and one
-- range holds a job's, or a mailbox's.
local function parked_of_job(profile, job)
  local member = call('ZRANGEBYLEX', PARKED .. profile, '[' .. job .. ':', '(' .. job .. ';')[1]
  if not member then return nil end
  local class, due = match(member, ':(%d):(.*)$')
  return member, tonumber(class), due
end

-- Makes parked jobs ready. One that was parked competes as a send if it was less urgent: by its due time it then comes
-- before the mailbox's next send, which would otherwise take the one connection again and again.
local function unpark(profile, members)
  if #members == 0 then return end
  call('ZREM', PARKED .. profile, unpack(members))
  local lanes = {}
  for _, member in ipairs(members) do
    local job, class, due = match(member, '^(.-):(%d):(.*)$')
    local lane = math.min(tonumber(class), 1) .. match(job, '%a')
    local entries = lanes[lane] or {}
    lanes[lane] = entries
    entries[#entries + 1], entries[#entries + 2] = due, job
  end
  for lane, entries in pairs(lanes) do make_ready(tonumber(sub(lane, 1, 1)), sub(lane, 2), profile, entries) end
end

local function parked_at(profile, mailbox)
  return call('ZRANGEBYLEX', PARKED .. profile, '[' .. mailbox .. 'a', '[' .. mailbox .. 'z')
end

-- The sessions of a mailbox without one of them.
local function without(sessions, one)
  if sessions == one then return '' end
  local rest = {}
  for each in string.gmatch(sessions, '[%a!]%d*') do
    if each ~= one then rest[#rest + 1] = each end
  end
  return concat(rest)
end
