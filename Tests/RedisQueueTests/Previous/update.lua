-- Sets what the queue must know of profiles, and lets their waiting jobs be looked at again.
--
-- ARGV[3…]: id, limit, POP3 counts on the profile 0|1, SMTP likewise, weight, paused 0|1; repeated, at
--   most 200 profiles. Returns how many were new or changed.
local ids = {}
for i = 3, #ARGV, 6 do ids[#ids + 1] = ARGV[i] end
if #ids == 0 then return 0 end
local old = call('HMGET', PROFILES, unpack(ids))
local changed, new = {}, {}
for n, id in ipairs(ids) do
  local at = 3 + 6 * (n - 1)
  local head = concat(ARGV, ':', at + 1, at + 5)
  local before, holds = match(old[n] or '', '^(%d+:%d:%d:%d+:%d):(.*)$')
  if before ~= head then
    changed[#changed + 1] = id
    new[#new + 1], new[#new + 2] = id, head .. ':' .. (holds or '0:0::')
  end
end
if #changed > 0 then
  call('HSET', PROFILES, unpack(new))
  reopen(changed)
  for _, profile in ipairs(changed) do
    -- A job parked under the old limit may fit now. More than 1,000 at once do not matter: each of the others is made
    -- ready when its mailbox is free.
    unpark(profile, call('ZRANGE', PARKED .. profile, 0, 999))
  end
end
wake()
return #changed
