-- Lists of mailboxes, runs and alerts at any size (D166): every view and filter has an index in the order in which it is
-- shown, from which a page and a bounded count are read. Only indexes: the previous release reads with them as well.
-- mailbox_schedule keeps its two; of a successful poll no row more is indexed than before.
--
-- While an index is built, its table is read and not written. Dropping one keeps readers away as well, until the end of
-- the transaction: that comes last, when nothing is left to build.

-- By address within a view, of the organization and of one profile. The view's condition is the index's own.
CREATE INDEX mailbox_activity ON mailbox (organization_id, is_active, address_key);
CREATE INDEX mailbox_not_tested ON mailbox (organization_id, address_key)
  WHERE (incoming_method = 'server-side-sync' AND incoming_status = 'not-run')
    OR (outgoing_method = 'server-side-sync' AND outgoing_status = 'not-run');
CREATE INDEX mailbox_failing ON mailbox (organization_id, address_key)
  WHERE incoming_status = 'failure' OR outgoing_status = 'failure';
CREATE INDEX mailbox_pending ON mailbox (organization_id, address_key) WHERE approval = 'pending';

-- organization_id is only there to be read: row-level security compares it, and a count must not visit the table for it.
CREATE INDEX mailbox_profile_address ON mailbox (profile_id, address_key) INCLUDE (organization_id);
CREATE INDEX mailbox_profile_activity ON mailbox (profile_id, is_active, address_key) INCLUDE (organization_id);
CREATE INDEX mailbox_profile_not_tested ON mailbox (profile_id, address_key) INCLUDE (organization_id)
  WHERE (incoming_method = 'server-side-sync' AND incoming_status = 'not-run')
    OR (outgoing_method = 'server-side-sync' AND outgoing_status = 'not-run');
CREATE INDEX mailbox_profile_failing ON mailbox (profile_id, address_key) INCLUDE (organization_id)
  WHERE incoming_status = 'failure' OR outgoing_status = 'failure';
CREATE INDEX mailbox_profile_pending ON mailbox (profile_id, address_key) INCLUDE (organization_id)
  WHERE approval = 'pending';

CREATE INDEX mailbox_updated ON mailbox (organization_id, updated_at, id);

-- Each level by itself; a list of several merges them.
CREATE INDEX alert_level ON alert (organization_id, level, last_seen, id);
CREATE INDEX alert_open_level ON alert (organization_id, level, last_seen, id) WHERE resolved_at IS NULL;

-- Nearly all runs are polls that succeed; the others are few and looked for by kind and result. The last that is built,
-- since every session writes this table and waits from here to the end.
CREATE INDEX run_unusual ON run (organization_id, kind, result, started_at, id)
  WHERE NOT (kind = 'p' AND result = 'success');

-- Their first columns are new ones'.
DROP INDEX mailbox_profile;
DROP INDEX alert_organization;
