-- Shared by the scripts that count who tried to log in since a mailbox of the lane was refused.
--
-- <refused>: <prefix>:refused:{<shard>}:<profile>:<i|o>, zset: mailbox → when its proven login was refused. While it is
-- there, <refused>:<n> hold roughly which mailboxes tried in the n-th window since 1970 (HyperLogLogs, 12 KB at most).
local function tried(refused, mailbox, window)
  local key = refused .. ':' .. math.floor(now / window)
  call('PFADD', key, mailbox)
  call('PEXPIRE', key, 2 * window)
end
