-- The head of every script of the server guard: the server's clock. These scripts know no epoch: what they hold is
-- forgotten safely, and a new epoch need not forget it.
local call = redis.call
local clock = call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
