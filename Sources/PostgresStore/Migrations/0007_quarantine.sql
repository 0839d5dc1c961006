-- Quarantine as people work it off, and mailboxes whose server gave its mail new unique ids. Only adds: the previous
-- release neither reads nor writes any of it. A third failure of a message that is in quarantine already is refused by
-- the new index there; it could only have added a second row.

-- When a person asked for another attempt; the worker clears it with the answer.
ALTER TABLE quarantine ADD COLUMN reprocess_requested_at timestamptz;

-- A message is in quarantine once. Of two rows the newer one stays; the owner of the table is held to the policies too,
-- of which none is for it.
ALTER TABLE quarantine NO FORCE ROW LEVEL SECURITY;
DELETE FROM quarantine q WHERE EXISTS (
  SELECT FROM quarantine n WHERE n.mailbox_id = q.mailbox_id AND n.uidl = q.uidl AND n.id > q.id);
ALTER TABLE quarantine FORCE ROW LEVEL SECURITY;
CREATE UNIQUE INDEX quarantine_message ON quarantine (mailbox_id, uidl COLLATE "C");
CREATE INDEX quarantine_organization ON quarantine (organization_id, id);
-- Looked at in the check of every poll, and nearly always empty.
CREATE INDEX quarantine_reprocess ON quarantine (mailbox_id) WHERE reprocess_requested_at IS NOT NULL;

-- A mailbox whose mail came back under new unique ids. Its import stands still until a person chooses; the row is gone
-- when that was carried out. A table beside the wide row, because its rows are few and the check reads them by key.
CREATE TABLE uidl_reset (
  mailbox_id bigint PRIMARY KEY,
  organization_id bigint NOT NULL,
  detected_at timestamptz NOT NULL DEFAULT now(),
  choice text CHECK (choice IN ('all', 'missing')),
  chosen_at timestamptz,
  chosen_by text,
  FOREIGN KEY (organization_id, mailbox_id) REFERENCES mailbox (organization_id, id) ON DELETE CASCADE
);
SELECT protect_tenant_table('uidl_reset');

-- Chunks are deleted, the row of their content stays: its deletion would look for references through every message.
GRANT UPDATE (reprocess_requested_at), DELETE ON quarantine TO postrider_api;
GRANT UPDATE (state, attempts, seen_at) ON ledger TO postrider_api;
GRANT DELETE ON content_chunk TO postrider_api;
GRANT SELECT, UPDATE (choice, chosen_at, chosen_by) ON uidl_reset TO postrider_api;
GRANT UPDATE, DELETE ON quarantine TO postrider_worker;
GRANT DELETE ON content_chunk, ledger TO postrider_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON uidl_reset TO postrider_worker;
