-- The view "mine" and every list of an owner read their mailboxes by address from these indexes, their own and those of each
-- of their shared queues; before, the organization's were walked through until enough of them were found. Only indexes:
-- the previous release reads with them as well.
CREATE INDEX mailbox_user_address ON mailbox (organization_id, user_id, address_key, queue_id);
CREATE INDEX mailbox_queue_address ON mailbox (organization_id, queue_id, address_key) WHERE queue_id IS NOT NULL;
-- Their first columns are the new ones'.
DROP INDEX mailbox_user;
DROP INDEX mailbox_queue;
