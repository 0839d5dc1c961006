-- A proven mailbox was refused.
--
-- KEYS[1]: <refused>, see above. ARGV: mailbox, window in ms.
-- Returns { mailboxes refused within the window, mailboxes that tried in this window and the one before }.
local refused, mailbox, window = KEYS[1], ARGV[1], tonumber(ARGV[2])
call('ZREMRANGEBYSCORE', refused, '-inf', now - window)
call('ZADD', refused, now, mailbox)
-- Far more than ever decide; a fleet that is refused must not fill the memory.
call('ZREMRANGEBYRANK', refused, 0, -20001)
call('PEXPIRE', refused, window)
tried(refused, mailbox, window)
local bucket = math.floor(now / window)
return { call('ZCARD', refused), call('PFCOUNT', refused .. ':' .. bucket, refused .. ':' .. bucket - 1) }
