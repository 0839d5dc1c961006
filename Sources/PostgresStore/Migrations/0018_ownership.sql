-- Which organization of the installation synchronizes an address (D173). Only adds: the previous release knows nothing of
-- it, and the trigger holds it to the rule as well.

-- Who has an address, as in mailbox.address_key. A mailbox gets it with its first passed test of the incoming direction and
-- keeps it, whatever fails afterwards, until it is deleted, inactive, of another address, or receives no more. No foreign
-- keys: making them would keep everybody from writing mailboxes while the table is filled below; triggers do their work.
CREATE TABLE address_owner (
  address_key text PRIMARY KEY,
  organization_id bigint NOT NULL,
  mailbox_id bigint NOT NULL,
  claimed_at timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT address_owner_mailbox UNIQUE (mailbox_id)
);
SELECT protect_tenant_table('address_owner'), hide_other_mailboxes('address_owner');
-- The API has no UPDATE: only a test that logged in moves an address from one organization to another.
GRANT SELECT, INSERT, DELETE ON address_owner TO postrider_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON address_owner TO postrider_worker;
GRANT INSERT ON audit TO postrider_worker;

-- Tells a mailbox's organization what became of its address. Nobody is told which organization the other one is.
CREATE FUNCTION raise_ownership_alert(subject bigint, organization bigint, alert_code text) RETURNS void
LANGUAGE sql AS $$
  INSERT INTO alert AS a (organization_id, mailbox_id, code, direction, level, text, remedy, parameters)
  SELECT organization, subject, alert_code, 'incoming',
    CASE alert_code WHEN 'ownership.took-over' THEN 'information' ELSE 'error' END,
    CASE alert_code
      WHEN 'ownership.took-over' THEN
        'The address was taken over: another organization of this installation does not synchronize it any more.'
      WHEN 'ownership.taken-over' THEN
        'ownership.taken-over: Another organization of this installation has taken the address over.'
      ELSE
        'ownership.other-organization: Another organization of this installation synchronizes this address already.'
    END,
    CASE alert_code
      WHEN 'ownership.took-over' THEN NULL
      WHEN 'ownership.taken-over' THEN
        'Ask whoever runs the installation if that was not agreed. To take it back, test & enable with `postrider mailbox '
        'test --take-over`. Sending goes on.'
      ELSE
        'Let that organization give the address up, or take it over: test & enable with `postrider mailbox test '
        '--take-over`, which stops it there. Sending goes on.'
    END,
    '{"direction": "incoming"}'
  ON CONFLICT (mailbox_id, code, coalesce(direction, '')) WHERE resolved_at IS NULL AND mailbox_id IS NOT NULL
  DO UPDATE SET count = a.count + 1, last_seen = now()
$$;

-- Gives an address up with what it was held for, and lets no mailbox receive that does not have its address, whoever
-- enables it: a worker of either release, or a person who makes it active again.
CREATE FUNCTION keep_address_owner() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    DELETE FROM address_owner WHERE mailbox_id = OLD.id;
    RETURN OLD;
  END IF;
  IF TG_OP = 'UPDATE' AND (NEW.address_key <> OLD.address_key OR NOT NEW.is_active
    OR NEW.incoming_method <> 'server-side-sync')
  THEN
    DELETE FROM address_owner WHERE mailbox_id = OLD.id;
  END IF;
  IF NEW.incoming_enabled AND NEW.is_active AND NEW.incoming_method = 'server-side-sync' THEN
    INSERT INTO address_owner (address_key, organization_id, mailbox_id)
      VALUES (NEW.address_key, NEW.organization_id, NEW.id) ON CONFLICT DO NOTHING;
    -- Row-level security may hide whose it is, never that it is one's own.
    IF NOT EXISTS (SELECT FROM address_owner WHERE mailbox_id = NEW.id AND address_key = NEW.address_key) THEN
      NEW.incoming_enabled := false;
      NEW.incoming_status := 'failure';
      NEW.incoming_failure_code := 'ownership.other-organization';
      NEW.incoming_failed_at := now();
      IF TG_OP = 'UPDATE' THEN
        PERFORM raise_ownership_alert(NEW.id, NEW.organization_id, NEW.incoming_failure_code);
      END IF;
    END IF;
  END IF;
  RETURN NEW;
END
$$;

-- Who receives already. Nothing is locked that anybody waits for: row-level security holds for the owner of the tables, so
-- the rows are read and written as a worker reads and writes them. In an empty database nobody may have that role yet.
DO $$
BEGIN
  IF pg_relation_size('mailbox') = 0 THEN RETURN; END IF;
  SET LOCAL ROLE postrider_worker;
  INSERT INTO address_owner (address_key, organization_id, mailbox_id)
    SELECT m.address_key, min(m.organization_id), min(m.id) FROM mailbox m
    WHERE m.incoming_enabled AND m.is_active AND m.incoming_method = 'server-side-sync'
    GROUP BY m.address_key HAVING count(*) = 1;
  RESET ROLE;
END
$$;

-- From here to the end nobody writes the wide rows, for some seconds at a million of them; polls and sending go on.
--
-- The box "sync from this organization only", ticked with a test. It counts for the test with that number and is used up by
-- it, whether or not it passes.
CREATE TABLE address_take_over (
  mailbox_id bigint PRIMARY KEY,
  organization_id bigint NOT NULL,
  request bigint NOT NULL,
  user_id bigint NOT NULL,
  user_name text NOT NULL,
  requested_at timestamptz NOT NULL DEFAULT now(),
  FOREIGN KEY (organization_id, mailbox_id) REFERENCES mailbox (organization_id, id) ON DELETE CASCADE
);
SELECT protect_tenant_table('address_take_over'), hide_other_mailboxes('address_take_over');
GRANT SELECT, INSERT, UPDATE ON address_take_over TO postrider_api;
GRANT SELECT, DELETE ON address_take_over TO postrider_worker;

-- Claims an address for a mailbox whose test has logged in and listed it, in the name of the session with this generation
-- and fence. Answers `held`, `elsewhere` when another organization has it, `taken-over` when it had it until now, or
-- `fenced`. Mailboxes are locked before hot rows, as everywhere.
CREATE FUNCTION claim_address(claimant bigint, organization bigint, test_generation bigint, test_fence bigint)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  key text;
  box address_take_over;
  claim address_owner;
  locked bigint[] := ARRAY[claimant];
BEGIN
  SELECT t.* INTO box FROM address_take_over t JOIN mailbox_schedule s ON s.mailbox_id = t.mailbox_id AND s.kind = 't'
    WHERE t.mailbox_id = claimant AND t.request > s.served;
  IF box.mailbox_id IS NOT NULL THEN
    locked := locked || ARRAY(SELECT a.mailbox_id FROM address_owner a JOIN mailbox m ON m.address_key = a.address_key
      WHERE m.id = claimant AND a.mailbox_id <> claimant);
  END IF;
  PERFORM 1 FROM mailbox m WHERE m.id = ANY (locked) ORDER BY m.id FOR NO KEY UPDATE;
  PERFORM 1 FROM mailbox_schedule s WHERE s.mailbox_id = ANY (locked) ORDER BY s.mailbox_id, s.kind FOR NO KEY UPDATE;
  PERFORM 1 FROM mailbox_schedule s WHERE s.mailbox_id = claimant AND s.kind = 't' AND s.organization_id = organization
    AND s.generation = test_generation AND s.last_fence < test_fence;
  IF NOT FOUND THEN RETURN 'fenced'; END IF;
  SELECT m.address_key INTO key FROM mailbox m
    WHERE m.id = claimant AND m.is_active AND m.incoming_method = 'server-side-sync';
  -- It will not receive anything; whoever makes it do so claims the address then.
  IF NOT FOUND THEN RETURN 'held'; END IF;
  LOOP
    INSERT INTO address_owner (address_key, organization_id, mailbox_id) VALUES (key, organization, claimant)
      ON CONFLICT (address_key) DO NOTHING;
    SELECT * INTO claim FROM address_owner a WHERE a.address_key = key FOR UPDATE;
    -- Given up in between by another transaction.
    CONTINUE WHEN NOT FOUND;
    EXIT;
  END LOOP;
  IF claim.mailbox_id = claimant THEN RETURN 'held'; END IF;
  IF box.mailbox_id IS NULL THEN RETURN 'elsewhere'; END IF;

  UPDATE address_owner SET organization_id = organization, mailbox_id = claimant, claimed_at = now()
    WHERE address_key = key;
  DELETE FROM address_take_over WHERE mailbox_id = claimant;
  UPDATE mailbox SET incoming_enabled = false, incoming_status = 'failure',
    incoming_failure_code = 'ownership.taken-over', incoming_failed_at = now(), version = version + 1, updated_at = now()
    WHERE id = claim.mailbox_id;
  -- As after an edit: what runs there may not write any more, a test not enable.
  UPDATE mailbox_schedule SET generation = generation + 1 WHERE mailbox_id = claim.mailbox_id AND kind IN ('p', 't');
  PERFORM announce_jobs(ARRAY(SELECT refresh_may_run(ARRAY[claim.mailbox_id])));
  UPDATE alert SET resolved_at = now() WHERE mailbox_id = claim.mailbox_id AND direction = 'incoming'
    AND resolved_at IS NULL AND level IN ('warning', 'error');
  PERFORM raise_ownership_alert(claim.mailbox_id, claim.organization_id, 'ownership.taken-over');
  PERFORM raise_ownership_alert(claimant, organization, 'ownership.took-over');
  INSERT INTO audit (organization_id, user_id, user_name, action, subject_kind, subject_id, before, after) VALUES
    (organization, box.user_id, box.user_name, 'mailbox.take-over', 'mailbox', claimant, NULL,
      jsonb_build_object('address', key)),
    (claim.organization_id, NULL, 'another organization', 'mailbox.taken-over', 'mailbox', claim.mailbox_id,
      jsonb_build_object('address', key, 'claimedAt', claim.claimed_at), NULL);
  RETURN 'taken-over';
END
$$;
REVOKE ALL ON FUNCTION claim_address FROM PUBLIC;
GRANT EXECUTE ON FUNCTION claim_address TO postrider_worker;

CREATE TRIGGER address_owner BEFORE INSERT OR DELETE OR UPDATE OF address_key, is_active, incoming_method,
  incoming_enabled ON mailbox FOR EACH ROW EXECUTE FUNCTION keep_address_owner();

-- What changed while the table was filled, and addresses that several organizations receive: whoever was enabled first
-- keeps them, by the alert that said so, or by the mailbox's age where that alert has been deleted. The others stop, and
-- are told.
DO $$
DECLARE
  losers bigint[];
BEGIN
  IF pg_relation_size('mailbox') = 0 THEN RETURN; END IF;
  SET LOCAL ROLE postrider_worker;
  DELETE FROM address_owner a WHERE NOT EXISTS (SELECT FROM mailbox m
    WHERE m.id = a.mailbox_id AND m.address_key = a.address_key AND m.is_active
      AND m.incoming_method = 'server-side-sync');
  INSERT INTO address_owner (address_key, organization_id, mailbox_id)
    SELECT DISTINCT ON (m.address_key) m.address_key, m.organization_id, m.id FROM mailbox m
    WHERE m.incoming_enabled AND m.is_active AND m.incoming_method = 'server-side-sync'
      AND NOT EXISTS (SELECT FROM address_owner a WHERE a.address_key = m.address_key)
    ORDER BY m.address_key, coalesce((SELECT min(e.first_seen) FROM alert e
      WHERE e.mailbox_id = m.id AND e.code = 'mailbox.connected.incoming'), m.created_at), m.id;
  WITH loser AS (
    UPDATE mailbox m SET incoming_enabled = false, incoming_status = 'failure',
      incoming_failure_code = 'ownership.other-organization', incoming_failed_at = now(), version = version + 1,
      updated_at = now()
    WHERE m.incoming_enabled AND m.is_active AND m.incoming_method = 'server-side-sync'
      AND NOT EXISTS (SELECT FROM address_owner a WHERE a.mailbox_id = m.id)
    RETURNING m.id
  ) SELECT array_agg(l.id) INTO losers FROM loser l;
  UPDATE mailbox_schedule s SET generation = generation + 1 WHERE s.mailbox_id = ANY (losers) AND s.kind IN ('p', 't');
  PERFORM announce_jobs(ARRAY(SELECT refresh_may_run(losers)));
  PERFORM raise_ownership_alert(m.id, m.organization_id, m.incoming_failure_code) FROM mailbox m
    WHERE m.id = ANY (losers);
  RESET ROLE;
END
$$;
