-- Holds the jobs of one direction of profiles, or lifts that.
--
-- ARGV[3…]: profile, direction `i`|`o`, milliseconds (0 lifts), reason of `a–z` and `-`; repeated, at most 200.
-- Returns nothing of use.
--
-- A visit that finds nothing but held jobs puts the lane to `wait`, so a hold costs one visit. Here every lane of the
-- profile is looked at again, as the hold may have become shorter.
for i = 3, #ARGV, 4 do
  local profile, direction, milliseconds, reason = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), ARGV[i + 3]
  local text = call('HGET', PROFILES, profile) or '0:0:0:1:0:0:0::'
  local head, held_in, held_out, why_in, why_out =
    match(text, '^(%d+:%d:%d:%d+:%d):(%d+):(%d+):([^:]*):([^:]*)$')
  local ends = milliseconds > 0 and format('%.0f', now + milliseconds) or '0'
  if direction == 'i' then held_in, why_in = ends, reason else held_out, why_out = ends, reason end
  call('HSET', PROFILES, profile, concat({ head, held_in, held_out, why_in, why_out }, ':'))
  for class = 1, 3 do
    if call('ZREM', WAIT, class .. ':' .. profile) == 1 then
      leave_full(class, profile)
      line_up(class, profile)
      woken = true
    end
  end
end
wake()
return 0
