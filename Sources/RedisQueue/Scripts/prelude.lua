-- The head of every script but `open`: checks the epoch, reads the server's clock, names the keys.
--
-- KEYS[1]: <prefix>:{<shard>}:epoch (hash: epoch, run_id, open_at in ms, shards). Every other key is built from it, so that all
--   of them share its hash tag: <prefix>:{<shard>}:<epoch>:…
-- ARGV[1]: the epoch the caller works in. ARGV[2]: the run id of the server its connection reached.
-- Errors: EPOCHLOST none | server | other <epoch>.
--
-- A lane is one class of one profile. A lane with ready jobs stands in exactly one of `turn:<class>` and `full`.
-- A lease's record in `owners`:
--   <counter>:<profile>:<class>:<due>:<renewed 0|1><withdrawn 0|1>:<again class>:<again due>:<worker>
local call = redis.call
local held = call('HMGET', KEYS[1], 'epoch', 'run_id', 'open_at', 'shards')
if not held[1] then return redis.error_reply('EPOCHLOST none') end
if held[2] ~= ARGV[2] then return redis.error_reply('EPOCHLOST server') end
if held[1] ~= ARGV[1] then return redis.error_reply('EPOCHLOST other ' .. held[1]) end

local shard = string.sub(KEYS[1], 1, -6)
local base = shard .. held[1] .. ':'
local clock = call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)

local LEASES, OWNERS, FULL, RECLAIMS = base .. 'leases', base .. 'owners', base .. 'full', base .. 'reclaims'
local TURN, READY, VT, PROFILE = base .. 'turn:', base .. 'ready:', base .. 'vt:', base .. 'profile:'
local PARKED, PARKED_IN = base .. 'parked:', base .. 'parked-in'
local SLOTS_OF_MAILBOX, SLOTS_OF_PROFILE = base .. 'slots:m', base .. 'slots:p'

-- The mailbox and the kind letter of a job id.
local function parts(job) return string.match(job, '^(%d+)(%a)') end

-- The fields of a lease's record; `again` and `again_due` are empty strings when no one asked again.
local function record(text)
  local counter, profile, class, due, renewed, withdrawn, again, again_due, worker =
    string.match(text, '^(%d+):(%d+):(%d):([^:]*):(%d)(%d):(%d?):([^:]*):(.*)$')
  return {
    counter = counter, profile = profile, class = class, due = due, renewed = renewed, withdrawn = withdrawn,
    again = again, again_due = again_due, worker = worker
  }
end

local function written(r)
  return table.concat(
    { r.counter, r.profile, r.class, r.due, r.renewed .. r.withdrawn, r.again, r.again_due, r.worker }, ':')
end

-- Whether something became takeable in this call; then `wake` tells the sleeping workers, once.
local woken = false
local function wake()
  if woken then call('PUBLISH', shard .. 'wake', '1') end
end

-- Gives a lane its turn: not before the class's virtual time, and not before the end of the lane's last turn, or a
-- profile that empties and fills again at every turn would always be first.
local function line_up(class, profile, tag)
  tag = tag or call('HGET', PROFILE .. profile, 'f' .. class) or 0
  local start = math.max(tonumber(call('GET', VT .. class) or 0), tonumber(tag))
  call('ZADD', TURN .. class, 'NX', start, profile)
end

-- Adds jobs (due, job, due, job, …; at most 2,000 elements) to a lane.
local function make_ready(class, profile, entries)
  local lane = READY .. class .. ':' .. profile
  local added = call('ZADD', lane, unpack(entries))
  if added > 0 then woken = true end
  if call('ZCARD', lane) == added then
    call('ZREM', FULL, class .. ':' .. profile)
    line_up(class, profile)
  end
end

-- Brings the lanes of a profile back that left because its limit was reached; the next visit counts again.
local function reopen(profile)
  local names = { '0:' .. profile, '1:' .. profile, '2:' .. profile, '3:' .. profile }
  local tags = call('ZMSCORE', FULL, unpack(names))
  for i = 1, 4 do
    if tags[i] then
      call('ZREM', FULL, names[i])
      line_up(i - 1, profile, tags[i])
      woken = true
    end
  end
end

-- The members of `parked:<profile>` are <job>:<class>:<due>, all of score 0, so they are in order of the job id and one
-- range holds a job's, or a mailbox's.
local function parked_of_job(profile, job)
  local member = call('ZRANGEBYLEX', PARKED .. profile, '[' .. job .. ':', '(' .. job .. ';')[1]
  if not member then return nil end
  local class, due = string.match(member, ':(%d):(.*)$')
  return member, tonumber(class), due
end

-- Makes parked jobs ready. One that was parked competes as a send if it was less urgent: by its due time it then comes
-- before the mailbox's next send, which would otherwise take the one connection again and again.
local function unpark(profile, members)
  if #members == 0 then return end
  call('ZREM', PARKED .. profile, unpack(members))
  local lanes = {}
  for _, member in ipairs(members) do
    local job, class, due = string.match(member, '^(.-):(%d):(.*)$')
    if class > '1' then class = '1' end
    local entries = lanes[class] or {}
    lanes[class] = entries
    entries[#entries + 1], entries[#entries + 2] = due, job
  end
  for class, entries in pairs(lanes) do make_ready(class, profile, entries) end
end
