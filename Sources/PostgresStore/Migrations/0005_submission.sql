-- What a message needs of a server, delivery reports on what was sent, and our own messages recognised when they come
-- in. Only adds; the previous release goes on with what it knows.

-- What was stored before was composed by Postrider: ASCII, lines ended by CRLF.
ALTER TABLE outgoing_email ADD COLUMN encoding text NOT NULL DEFAULT '7bit'
  CHECK (encoding IN ('7bit', '8bit', 'utf8'));

-- By which a delivery report, or our own message in the mailbox it was sent from, is found.
CREATE INDEX outgoing_email_message_id ON outgoing_email (mailbox_id, message_id);

-- What the last delivery report said; report_email_id names the message that brought it.
ALTER TABLE outgoing_recipient
  ADD COLUMN report_action text CHECK (report_action IN ('failed', 'delayed', 'delivered', 'relayed', 'expanded')),
  ADD COLUMN report_status text,
  ADD COLUMN report_diagnostic text,
  ADD COLUMN report_email_id bigint,
  ADD COLUMN reported_at timestamptz;

-- The outgoing message that a stored delivery report is about.
ALTER TABLE email ADD COLUMN report_of_id bigint;

-- Messages that a session sent from a mailbox to itself, such as the one of test & enable.
CREATE TABLE own_message (
  mailbox_id bigint NOT NULL,
  message_id text NOT NULL,
  organization_id bigint NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (mailbox_id, message_id),
  FOREIGN KEY (organization_id, mailbox_id) REFERENCES mailbox (organization_id, id) ON DELETE CASCADE
);

SELECT protect_tenant_table('own_message'::regclass);
GRANT SELECT, INSERT, DELETE ON own_message TO postrider_worker;
GRANT SELECT ON own_message TO postrider_api;
