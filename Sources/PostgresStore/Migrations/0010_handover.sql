-- Which messages of a session that died may be tried again. Only adds; the previous release neither reads nor writes it, so
-- what it leaves in the middle stays uncertain.

-- The session's fence for as long as the end of the message has not begun to leave. A message in state `sending` whose
-- fence this is can have arrived nowhere.
ALTER TABLE outgoing_email ADD COLUMN unsent_fence bigint;
