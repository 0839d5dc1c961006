-- What an attempt to send was, and quick answers about messages under way. Only adds: the previous release leaves the new
-- columns empty, which means as before.

-- Since when it is being tried, so that what waited for a quota or a paused mailbox has its two days before it.
ALTER TABLE outgoing_email ADD COLUMN tried_since timestamptz;
-- How many of its pending recipients the present attempt is for; NULL: all of them.
ALTER TABLE outgoing_email ADD COLUMN tried_recipients int;

-- Few rows at any time, asked for by every session; the index of what is pending cannot tell them apart.
CREATE INDEX outgoing_email_sending ON outgoing_email (mailbox_id, lane) WHERE state = 'sending';

-- The alerts of one subject that were mailed lately, for a flood of them.
CREATE INDEX alert_mailed_subject ON alert (code, coalesce(mailbox_id, -profile_id), mailed_at)
  WHERE mailed_at IS NOT NULL;
