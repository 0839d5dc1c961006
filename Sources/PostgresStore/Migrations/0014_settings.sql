-- Settings of an organization, deletions, and what becomes of alerts. The previous release neither reads nor writes any of
-- it; what it writes goes on to be right.

ALTER TABLE organization
  ADD COLUMN act_method text NOT NULL DEFAULT 'none' CHECK (act_method IN ('none', 'server-side-sync')),
  -- Which alerts are raised at all, as a list.
  ADD COLUMN alert_levels jsonb NOT NULL DEFAULT '["error", "warning", "information"]',
  ADD COLUMN notifies_mailbox_owners boolean NOT NULL DEFAULT false,
  -- The last mailbox whose schedule follows changed settings already; 0 before the first, NULL when all do.
  ADD COLUMN settled_to bigint;
CREATE INDEX organization_unsettled ON organization (id) WHERE settled_to IS NOT NULL;
ALTER TABLE mailbox
  ADD COLUMN act_method text NOT NULL DEFAULT 'none' CHECK (act_method IN ('none', 'server-side-sync'));

-- A level that is off raises nothing, whoever writes: workers, schedulers and those of the previous release. What is open
-- already stays, and is not counted up.
CREATE FUNCTION drop_unwanted_alert() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM organization o WHERE o.id = NEW.organization_id AND NOT o.alert_levels ? NEW.level) THEN
    RETURN NULL;
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER alert_level BEFORE INSERT ON alert FOR EACH ROW EXECUTE FUNCTION drop_unwanted_alert();
ALTER TABLE alert ADD COLUMN dismissed_by text;
-- Walls, and the deletion of what alerts are about.
CREATE INDEX alert_mailbox ON alert (mailbox_id, last_seen, id) WHERE mailbox_id IS NOT NULL;
CREATE INDEX alert_profile ON alert (profile_id, last_seen, id) WHERE profile_id IS NOT NULL;

-- A profile that is being deleted is inactive; its mailboxes are taken from it in steps, the row goes with the last one.
ALTER TABLE server_profile ADD COLUMN deleting_since timestamptz;
CREATE INDEX server_profile_deleting ON server_profile (id) WHERE deleting_since IS NOT NULL;

-- A deleted mailbox is gone at once, with its hot rows: no session can write for it any more, because every write locks
-- one of them. What it stored may be a million rows, which are deleted in steps afterwards: so these tables do not
-- reference it any more. A row here stays an hour after the last step, for what was under way.
ALTER TABLE email DROP CONSTRAINT email_organization_id_mailbox_id_fkey;
ALTER TABLE ledger DROP CONSTRAINT ledger_organization_id_mailbox_id_fkey;
ALTER TABLE quarantine DROP CONSTRAINT quarantine_organization_id_mailbox_id_fkey;
ALTER TABLE outgoing_email DROP CONSTRAINT outgoing_email_organization_id_mailbox_id_fkey;
CREATE TABLE deleted_mailbox (
  mailbox_id bigint PRIMARY KEY,
  organization_id bigint NOT NULL REFERENCES organization,
  -- Under which its jobs may be in the queue; empty when there are none any more.
  profile_ids bigint[] NOT NULL,
  deleted_at timestamptz NOT NULL DEFAULT now(),
  next_step_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX deleted_mailbox_step ON deleted_mailbox (next_step_at);
CREATE INDEX deleted_mailbox_queued ON deleted_mailbox (deleted_at) WHERE profile_ids <> '{}';

SELECT protect_tenant_table('deleted_mailbox'), hide_other_mailboxes('deleted_mailbox');
GRANT SELECT, INSERT ON deleted_mailbox TO postrider_api;
GRANT DELETE ON send_usage TO postrider_api;
GRANT SELECT, UPDATE, DELETE ON deleted_mailbox TO postrider_worker;
GRANT DELETE ON email, outgoing_email, run, run_step TO postrider_worker;
GRANT UPDATE (settled_to) ON organization TO postrider_worker;
GRANT UPDATE (profile_id, version, updated_at) ON mailbox TO postrider_worker;
GRANT UPDATE (deleting_since), DELETE ON server_profile TO postrider_worker;
GRANT INSERT ON mailbox_move TO postrider_worker;
GRANT DELETE ON oauth_consent, oauth_grant TO postrider_worker;
