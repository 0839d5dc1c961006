-- Roles of people, owners, passwords and sessions, and what an owner sees. Only adds: the previous release reads and writes
-- none of it, shows no token of the role `owner`, and lets a session live to its absolute end.

ALTER TABLE app_user ADD COLUMN version bigint NOT NULL DEFAULT 1,
  ADD COLUMN role text NOT NULL DEFAULT 'owner'
    CHECK (role IN ('administrator', 'mailbox-manager', 'approver', 'reader', 'owner'));
ALTER TABLE shared_queue ADD COLUMN version bigint NOT NULL DEFAULT 1, ADD COLUMN owner_id bigint,
  ADD FOREIGN KEY (organization_id, owner_id) REFERENCES app_user (organization_id, id);
ALTER TABLE server_profile ADD COLUMN owner_id bigint,
  ADD FOREIGN KEY (organization_id, owner_id) REFERENCES app_user (organization_id, id);
CREATE INDEX shared_queue_owner ON shared_queue (organization_id, owner_id);
CREATE INDEX server_profile_owner ON server_profile (organization_id, owner_id);

CREATE TABLE shared_queue_member (
  queue_id bigint NOT NULL,
  user_id bigint NOT NULL,
  organization_id bigint NOT NULL,
  PRIMARY KEY (queue_id, user_id),
  FOREIGN KEY (organization_id, queue_id) REFERENCES shared_queue (organization_id, id) ON DELETE CASCADE,
  FOREIGN KEY (organization_id, user_id) REFERENCES app_user (organization_id, id) ON DELETE CASCADE
);
CREATE INDEX shared_queue_member_user ON shared_queue_member (organization_id, user_id);

-- The mailboxes of an owner; the first also counts an organization's mailboxes, without a look at the wide rows.
CREATE INDEX mailbox_user ON mailbox (organization_id, user_id, queue_id);
CREATE INDEX mailbox_queue ON mailbox (organization_id, queue_id) WHERE queue_id IS NOT NULL;

-- hash: scrypt with its parameters and salt, as a PHC string. failures: wrong passwords in a row.
CREATE TABLE user_password (
  user_id bigint PRIMARY KEY,
  organization_id bigint NOT NULL,
  hash text NOT NULL CHECK (char_length(hash) BETWEEN 20 AND 300),
  changed_at timestamptz NOT NULL DEFAULT now(),
  failures int NOT NULL DEFAULT 0 CHECK (failures >= 0),
  failed_at timestamptz,
  locked_until timestamptz,
  last_sign_in_at timestamptz,
  FOREIGN KEY (organization_id, user_id) REFERENCES app_user (organization_id, id) ON DELETE CASCADE
);

-- A session is a token that also ends when it is not used for idle_seconds. last_used_at is written once a minute.
ALTER TABLE api_token DROP CONSTRAINT api_token_role_check,
  ADD CONSTRAINT api_token_role_check
    CHECK (role IN ('administrator', 'mailbox-manager', 'approver', 'reader', 'owner')),
  ADD COLUMN kind text NOT NULL DEFAULT 'token' CHECK (kind IN ('token', 'session')),
  ADD COLUMN idle_seconds int CHECK (idle_seconds > 0),
  ADD COLUMN last_used_at timestamptz;
CREATE INDEX api_token_list ON api_token (organization_id, id);
CREATE INDEX api_token_user ON api_token (user_id);

-- What is known of before: people have the strongest role that they have a token of, profiles belong to whoever created
-- them, and shared queues to the organization's first administrator. The owner of the tables is held to row-level security
-- itself and would see no row.
ALTER TABLE app_user NO FORCE ROW LEVEL SECURITY;
ALTER TABLE api_token NO FORCE ROW LEVEL SECURITY;
ALTER TABLE shared_queue NO FORCE ROW LEVEL SECURITY;
ALTER TABLE server_profile NO FORCE ROW LEVEL SECURITY;
ALTER TABLE audit NO FORCE ROW LEVEL SECURITY;
UPDATE app_user u SET role = t.role FROM (
  SELECT DISTINCT ON (user_id) user_id, role FROM api_token
  WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
  ORDER BY user_id, array_position(ARRAY['administrator', 'mailbox-manager', 'reader', 'approver'], role)
) t WHERE t.user_id = u.id;
UPDATE server_profile p SET owner_id = u.id FROM audit a JOIN app_user u ON u.id = a.user_id
WHERE a.action = 'profile.create' AND a.subject_id = p.id AND a.organization_id = p.organization_id
  AND u.organization_id = p.organization_id;
UPDATE shared_queue q SET owner_id = (
  SELECT min(u.id) FROM app_user u
  WHERE u.organization_id = q.organization_id AND u.role = 'administrator' AND u.is_active);
ALTER TABLE app_user FORCE ROW LEVEL SECURITY;
ALTER TABLE api_token FORCE ROW LEVEL SECURITY;
ALTER TABLE shared_queue FORCE ROW LEVEL SECURITY;
ALTER TABLE server_profile FORCE ROW LEVEL SECURITY;
ALTER TABLE audit FORCE ROW LEVEL SECURITY;

-- Why a direction of a mailbox does not run, owners included; NULL when it does.
CREATE FUNCTION not_running_reason(
  method text, mailbox_active boolean, owner_active boolean, profile_active boolean, approval text,
  approval_needed boolean, status text, direction_enabled boolean, paused boolean, set_aside boolean
) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN method <> 'server-side-sync' THEN 'method-none'
    WHEN NOT mailbox_active THEN 'mailbox-inactive'
    WHEN NOT owner_active THEN 'owner-inactive'
    WHEN profile_active IS NULL THEN 'no-profile'
    WHEN NOT profile_active THEN 'profile-inactive'
    WHEN paused THEN 'paused'
    WHEN approval_needed AND approval <> 'approved' THEN 'not-approved'
    WHEN status = 'not-run' THEN 'not-tested'
    WHEN NOT direction_enabled THEN 'disabled'
    WHEN set_aside THEN 'set-aside'
  END
$$;

-- Writes the derived fact "may run", as before; a mailbox whose user or shared queue is inactive may not.
CREATE OR REPLACE FUNCTION refresh_may_run(mailbox_ids bigint[]) RETURNS TABLE (job text) LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM mailbox_schedule s WHERE s.mailbox_id = ANY (mailbox_ids)
    ORDER BY s.mailbox_id, s.kind FOR NO KEY UPDATE;
  RETURN QUERY
    UPDATE mailbox_schedule s SET
      enabled = fact.may_run,
      profile_id = fact.profile_id,
      next_due_at = CASE WHEN fact.starts THEN now() ELSE s.next_due_at END,
      reason = CASE WHEN fact.starts THEN 'enabled' ELSE s.reason END,
      failures = CASE WHEN fact.may_run AND NOT s.enabled THEN 0 ELSE s.failures END,
      failure_code = CASE WHEN fact.may_run AND NOT s.enabled THEN NULL ELSE s.failure_code END,
      slot_at = CASE WHEN fact.starts THEN NULL ELSE s.slot_at END,
      slot_gap_seconds = CASE WHEN fact.starts THEN NULL ELSE s.slot_gap_seconds END,
      gap_code = CASE WHEN fact.starts THEN NULL ELSE s.gap_code END
    FROM (
      SELECT h.mailbox_id, h.kind, m.profile_id, may.run AS may_run,
        may.run AND NOT h.enabled AND (h.kind = 'p' OR h.kind = 's' AND EXISTS (SELECT FROM outgoing_email e
          WHERE e.mailbox_id = h.mailbox_id AND e.state IN ('pending-send', 'sending'))) AS starts
      FROM mailbox_schedule h
      JOIN mailbox m ON m.id = h.mailbox_id
      JOIN organization o ON o.id = m.organization_id
      CROSS JOIN LATERAL (
        SELECT m.paused_at IS NULL
          AND NOT EXISTS (SELECT FROM mailbox_move v WHERE v.mailbox_id = h.mailbox_id)
          AND NOT EXISTS (SELECT FROM set_aside_job a WHERE a.mailbox_id = h.mailbox_id AND a.kind = h.kind)
          AND CASE h.kind WHEN 't' THEN true ELSE not_running_reason(
            CASE h.kind WHEN 'p' THEN m.incoming_method ELSE m.outgoing_method END, m.is_active,
            coalesce((SELECT w.is_active FROM app_user w WHERE w.id = m.user_id),
              (SELECT w.is_active FROM shared_queue w WHERE w.id = m.queue_id)),
            CASE WHEN m.profile_id IS NOT NULL THEN true END, m.approval,
            CASE WHEN m.queue_id IS NULL THEN o.approved_users_only ELSE o.approved_queues_only END,
            CASE h.kind WHEN 'p' THEN m.incoming_status ELSE m.outgoing_status END,
            CASE h.kind WHEN 'p' THEN m.incoming_enabled ELSE m.outgoing_enabled END, false, false) IS NULL END AS run
      ) may
      WHERE h.mailbox_id = ANY (mailbox_ids)
    ) fact
    WHERE s.mailbox_id = fact.mailbox_id AND s.kind = fact.kind
      AND (s.enabled, s.profile_id) IS DISTINCT FROM (fact.may_run, fact.profile_id)
    RETURNING s.mailbox_id::text || s.kind;
END
$$;

SELECT protect_tenant_table(name::regclass) FROM unnest(ARRAY['shared_queue_member', 'user_password']) AS name;
GRANT SELECT, INSERT, UPDATE, DELETE ON shared_queue_member, user_password TO postrider_api;
-- Workers derive "may run", too.
GRANT SELECT (id, organization_id, is_active) ON app_user, shared_queue TO postrider_worker;

-- What a person of the role `owner` sees. Their transactions set postrider.owner, everybody else's leave it empty; the
-- sub-select makes that a question asked once for a query and not once for a row.
--
-- Mailboxes of their own, and of shared queues that they own or are a member of.
CREATE FUNCTION own_queue_ids() RETURNS bigint[] LANGUAGE sql STABLE AS $$
  SELECT ARRAY(
    SELECT q.id FROM shared_queue q
    WHERE q.organization_id = nullif(current_setting('postrider.organization', true), '')::bigint
      AND q.owner_id = nullif(current_setting('postrider.owner', true), '')::bigint
    UNION
    SELECT s.queue_id FROM shared_queue_member s
    WHERE s.organization_id = nullif(current_setting('postrider.organization', true), '')::bigint
      AND s.user_id = nullif(current_setting('postrider.owner', true), '')::bigint)
$$;
CREATE POLICY owner ON mailbox AS RESTRICTIVE TO postrider_api USING (
  (SELECT nullif(current_setting('postrider.owner', true), '') IS NULL)
  OR user_id = (SELECT nullif(current_setting('postrider.owner', true), '')::bigint)
  OR queue_id = ANY ((SELECT own_queue_ids())::bigint[]));

CREATE FUNCTION own_mailbox_ids() RETURNS bigint[] LANGUAGE sql STABLE AS $$
  SELECT ARRAY(
    SELECT m.id FROM mailbox m
    WHERE m.organization_id = nullif(current_setting('postrider.organization', true), '')::bigint
      AND (m.user_id = (SELECT nullif(current_setting('postrider.owner', true), '')::bigint)
        OR m.queue_id = ANY ((SELECT own_queue_ids())::bigint[])))
$$;

-- Tables with a mailbox_id show and take rows of those mailboxes alone. For every later table of that kind, too.
CREATE FUNCTION hide_other_mailboxes(tenant_table regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  EXECUTE format(
    'CREATE POLICY owner ON %s AS RESTRICTIVE TO postrider_api USING ('
    '(SELECT nullif(current_setting(''postrider.owner'', true), '''') IS NULL)'
    ' OR mailbox_id = ANY ((SELECT own_mailbox_ids())::bigint[]))', tenant_table);
END
$$;
SELECT hide_other_mailboxes(c.oid::regclass)
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'mailbox_id'
WHERE c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'mailbox'::regclass)
  AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname <> 'alert';

-- Alerts of own mailboxes, and of own profiles.
CREATE POLICY owner ON alert AS RESTRICTIVE TO postrider_api USING (
  (SELECT nullif(current_setting('postrider.owner', true), '') IS NULL)
  OR mailbox_id = ANY ((SELECT own_mailbox_ids())::bigint[])
  OR profile_id IN (SELECT p.id FROM server_profile p
    WHERE p.owner_id = (SELECT nullif(current_setting('postrider.owner', true), '')::bigint)));
-- Steps of the runs that are seen.
CREATE POLICY owner ON run_step AS RESTRICTIVE TO postrider_api USING (
  (SELECT nullif(current_setting('postrider.owner', true), '') IS NULL)
  OR EXISTS (SELECT FROM run r WHERE r.id = run_id AND r.started_at = run_started_at));
-- Own tokens and the own password.
CREATE POLICY owner ON api_token AS RESTRICTIVE TO postrider_api USING (
  (SELECT nullif(current_setting('postrider.owner', true), '') IS NULL)
  OR user_id = (SELECT nullif(current_setting('postrider.owner', true), '')::bigint));
CREATE POLICY owner ON user_password AS RESTRICTIVE TO postrider_api USING (
  (SELECT nullif(current_setting('postrider.owner', true), '') IS NULL)
  OR user_id = (SELECT nullif(current_setting('postrider.owner', true), '')::bigint));
-- Nothing of what no right of theirs leads to. Names of people, shared queues and profiles stay: own mailboxes show them.
DO $$
DECLARE
  hidden text;
BEGIN
  FOREACH hidden IN ARRAY ARRAY[
    'attachment', 'content', 'content_chunk', 'outgoing_recipient', 'profile_activity', 'queue_repair', 'webhook',
    'webhook_delivery', 'audit']
  LOOP
    EXECUTE format(
      'CREATE POLICY owner ON %I AS RESTRICTIVE FOR SELECT TO postrider_api USING ('
      '(SELECT nullif(current_setting(''postrider.owner'', true), '''') IS NULL))', hidden);
  END LOOP;
END
$$;
