-- Sets what the queue must know of profiles, and lets their waiting jobs be looked at again.
--
-- ARGV[3…]: id, limit, POP3 counts on the profile 0|1, SMTP likewise, weight, paused 0|1; repeated, at
--   most 200 profiles. Returns how many were new or changed.
local changed = 0
for i = 3, #ARGV, 6 do
  local profile = ARGV[i]
  local key = PROFILE .. profile
  local old = call('HMGET', key, 'limit', 'in', 'out', 'weight', 'paused')
  local differs = false
  for n = 1, 5 do differs = differs or old[n] ~= ARGV[i + n] end
  if differs then
    changed = changed + 1
    call('HSET', key, 'limit', ARGV[i + 1], 'in', ARGV[i + 2], 'out', ARGV[i + 3], 'weight', ARGV[i + 4],
      'paused', ARGV[i + 5])
    reopen(profile)
    -- A job parked under the old limit may fit now. More than 1,000 at once do not matter: each of the others is made
    -- ready when its mailbox is free.
    unpark(profile, call('ZRANGE', PARKED .. profile, 0, 999))
    if call('EXISTS', PARKED .. profile) == 0 then call('SREM', PARKED_IN, profile) end
  end
end
wake()
return changed
