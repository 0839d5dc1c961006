-- Gives the lanes that wait to be told of a recovery to one caller, or strikes those that have been told.
--
-- ARGV: handover in ms, then the lanes `<profile>:<i|o>` that have been told; none to be given some.
-- Returns the lanes given, at most 500; or, when some were struck, { 1 if more wait }.
local handover = tonumber(ARGV[1])
if #ARGV > 1 then
  local fields = {}
  if is_open or b.row > 0 then
    -- The server fails again: these lanes are told of the next recovery, too, and when one is refused its alert is raised
    -- anew.
    for i = 2, #ARGV do fields[#fields + 1], fields[#fields + 2] = 'l:' .. ARGV[i], 'f' end
    call('HSET', KEYS[1], unpack(fields))
    return { 0 }
  end
  for i = 2, #ARGV do fields[#fields + 1] = 'l:' .. ARGV[i] end
  call('HDEL', KEYS[1], unpack(fields))
  if call('HLEN', KEYS[1]) > 1 then
    call('HSET', KEYS[1], 'told', 0)
    return { 1 }
  end
  call('DEL', KEYS[1])
  return { 0 }
end
if is_open or not b.told or tonumber(b.told) > now then return {} end
local lanes = {}
for _, field in ipairs(call('HKEYS', KEYS[1])) do
  if string.sub(field, 1, 2) == 'l:' and #lanes < 500 then lanes[#lanes + 1] = string.sub(field, 3) end
end
call('HSET', KEYS[1], 'told', now + handover)
return lanes
