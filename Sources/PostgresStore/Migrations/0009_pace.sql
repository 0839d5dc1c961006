-- How fast and how much a mailbox sends. Only adds: the previous release neither reads nor writes any of it; what it sends
-- while both run is not counted.

-- Limits as JSON, as SendQuota in the program; NULL is the profile's quota, respectively the provider's figures.
ALTER TABLE server_profile ADD COLUMN send_quota jsonb, ADD COLUMN shared_send_quota jsonb;
ALTER TABLE mailbox ADD COLUMN send_quota jsonb;

-- Which delivery reports are asked for (RFC 3461), as DSNRequest in the program.
ALTER TABLE outgoing_email ADD COLUMN dsn jsonb;

-- The address that an answer or an automatic message goes to: more of them within an hour than a mailbox may send are kept
-- back, because two programs may be answering each other. And the automatic messages that were received, which no program
-- may answer.
ALTER TABLE outgoing_email ADD COLUMN correspondent text;
CREATE INDEX outgoing_email_correspondent ON outgoing_email (mailbox_id, correspondent, created_at)
  WHERE correspondent IS NOT NULL;
CREATE INDEX email_automatic ON email (mailbox_id, message_id) WHERE message_class <> 'ordinary';

-- Whether an organization's alerts go out by mail; levels and recipients are lists as JSON. No row: off.
CREATE TABLE alert_mail (
  organization_id bigint PRIMARY KEY REFERENCES organization ON DELETE CASCADE,
  is_on boolean NOT NULL DEFAULT false,
  mailbox_id bigint,
  recipients jsonb NOT NULL DEFAULT '[]',
  levels jsonb NOT NULL DEFAULT '["error", "warning"]',
  last_mailed_at timestamptz,
  FOREIGN KEY (organization_id, mailbox_id) REFERENCES mailbox (organization_id, id) ON DELETE CASCADE
);
-- When an alert was mailed, and as what; and when the profile's owner was told.
ALTER TABLE alert ADD COLUMN mailed_at timestamptz, ADD COLUMN mailed_level text, ADD COLUMN owner_mailed_at timestamptz;
-- Whom to tell when more than half of the profile's mailboxes fail within an hour.
ALTER TABLE server_profile ADD COLUMN failure_notice_to text;
CREATE INDEX alert_open ON alert (organization_id, id) WHERE resolved_at IS NULL;
CREATE INDEX alert_mailed ON alert (organization_id, code, mailed_at) WHERE mailed_at IS NOT NULL;

-- What was handed over, by the second (span 1, for a minute) and by five minutes (span 300, for a day). mailbox_id 0
-- stands for all mailboxes of the profile together. A mailbox that moves to another profile is another account there.
-- Rows are updated in place and deleted as soon as no window reaches them.
CREATE TABLE send_usage (
  profile_id bigint NOT NULL,
  mailbox_id bigint NOT NULL,
  span smallint NOT NULL CHECK (span IN (1, 300)),
  bucket timestamptz NOT NULL,
  organization_id bigint NOT NULL,
  messages int NOT NULL,
  recipients int NOT NULL,
  PRIMARY KEY (profile_id, mailbox_id, span, bucket),
  FOREIGN KEY (organization_id, profile_id) REFERENCES server_profile (organization_id, id) ON DELETE CASCADE
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);

-- What a server's answers changed: nothing is sent before waits_until; at most so many connections for some time.
CREATE TABLE send_pace (
  mailbox_id bigint PRIMARY KEY,
  organization_id bigint NOT NULL,
  waits_until timestamptz,
  reason text,
  connections smallint CHECK (connections >= 1),
  connections_until timestamptz,
  FOREIGN KEY (organization_id, mailbox_id) REFERENCES mailbox (organization_id, id) ON DELETE CASCADE
);

-- When fewer than `most` will lie in the window of `width` seconds: NULL when that is so now. A message counts as long as
-- its bucket reaches into the window, so the true number is never above.
CREATE FUNCTION send_window_opens(
  of_profile bigint, of_mailbox bigint, of_span int, width int, most int, by_recipients boolean, moment timestamptz
) RETURNS timestamptz LANGUAGE sql STABLE AS $$
  SELECT max(u.bucket) + (width + of_span) * interval '1 second'
  FROM (
    SELECT bucket, sum(CASE WHEN by_recipients THEN recipients ELSE messages END) OVER (ORDER BY bucket DESC) AS newer
    FROM send_usage
    WHERE profile_id = of_profile AND mailbox_id = of_mailbox AND span = of_span
      AND bucket >= date_bin(of_span * interval '1 second', moment, 'epoch') - width * interval '1 second'
  ) u WHERE u.newer >= most
$$;

-- When a message may leave by one quota (NULL: now) and how many recipients it may have then (NULL: as it likes).
-- Messages of low priority leave a tenth of each limit to the others, and leave at an even pace: so one that is more
-- important finds room at once, or after the time of one message.
CREATE FUNCTION send_room(
  of_profile bigint, of_mailbox bigint, quota jsonb, is_low boolean, moment timestamptz, OUT opens_at timestamptz,
  OUT recipients int
) LANGUAGE plpgsql STABLE AS $$
DECLARE
  most int;
  share int;
BEGIN
  recipients := (quota->>'recipientsPerMessage')::int;
  most := (quota->>'messagesPerMinute')::int;
  IF most IS NOT NULL THEN
    share := CASE WHEN is_low AND most > 1 THEN most - greatest(most / 10, 1) ELSE most END;
    opens_at := send_window_opens(of_profile, of_mailbox, 1, 60, share, false, moment);
    IF is_low THEN
      opens_at := greatest(opens_at, send_window_opens(of_profile, of_mailbox, 1, ceil(60.0 / most)::int - 1,
        ceil(most / 60.0)::int, false, moment));
    END IF;
  END IF;
  most := (quota->>'messagesPerDay')::int;
  IF most IS NOT NULL THEN
    share := CASE WHEN is_low AND most > 1 THEN most - greatest(most / 10, 1) ELSE most END;
    opens_at := greatest(opens_at, send_window_opens(of_profile, of_mailbox, 300, 86400, share, false, moment));
  END IF;
  most := (quota->>'recipientsPerDay')::int;
  IF most IS NOT NULL THEN
    share := CASE WHEN is_low AND most > 1 THEN most - greatest(most / 10, 1) ELSE most END;
    opens_at := greatest(opens_at, send_window_opens(of_profile, of_mailbox, 300, 86400, share, true, moment));
    recipients := least(recipients, share - (SELECT coalesce(sum(u.recipients), 0) FROM send_usage u
      WHERE u.profile_id = of_profile AND u.mailbox_id = of_mailbox AND u.span = 300
        AND u.bucket >= date_bin('5 minutes', moment, 'epoch') - interval '1 day')::int);
  END IF;
END
$$;

-- The message that leaves next, or when it may. own and shared are quotas; NULL for none. Of what waits for room, a
-- message of higher priority that becomes due earlier may still leave before.
CREATE FUNCTION next_outgoing(
  of_mailbox bigint, of_profile bigint, own jsonb, shared jsonb, OUT email_id bigint, OUT recipients int,
  OUT opens_at timestamptz, OUT why text
) LANGUAGE plpgsql AS $$
DECLARE
  moment timestamptz := clock_timestamp();
  rank int;
  room record;
BEGIN
  SELECT e.id, e.priority INTO email_id, rank FROM outgoing_email e
    WHERE e.mailbox_id = of_mailbox AND e.state = 'pending-send' AND e.next_try_at <= moment
    ORDER BY e.priority, e.next_try_at, e.id LIMIT 1;
  IF email_id IS NULL THEN RETURN; END IF;
  SELECT p.waits_until, p.reason INTO opens_at, why FROM send_pace p
    WHERE p.mailbox_id = of_mailbox AND p.waits_until > moment;
  IF own IS NOT NULL THEN
    SELECT * INTO room FROM send_room(of_profile, of_mailbox, own, rank = 2, moment);
    recipients := room.recipients;
    IF room.opens_at > coalesce(opens_at, moment) THEN
      opens_at := room.opens_at;
      why := 'quota';
    END IF;
  END IF;
  IF shared IS NOT NULL THEN
    SELECT * INTO room FROM send_room(of_profile, 0, shared, rank = 2, moment);
    recipients := least(recipients, room.recipients);
    IF room.opens_at > coalesce(opens_at, moment) THEN
      opens_at := room.opens_at;
      why := 'profile-quota';
    END IF;
  END IF;
  IF opens_at IS NOT NULL AND why IN ('quota', 'profile-quota') THEN
    opens_at := least(opens_at, (SELECT min(e.next_try_at) FROM outgoing_email e
      WHERE e.mailbox_id = of_mailbox AND e.state = 'pending-send' AND e.priority < rank AND e.next_try_at > moment));
  END IF;
END
$$;

CREATE FUNCTION count_sent(
  of_organization bigint, of_profile bigint, of_mailbox bigint, with_recipients int
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  moment timestamptz := clock_timestamp();
BEGIN
  DELETE FROM send_usage WHERE profile_id = of_profile AND mailbox_id = of_mailbox
    AND (span = 1 AND bucket < moment - interval '2 minutes' OR span = 300 AND bucket < moment - interval '25 hours');
  INSERT INTO send_usage AS u (organization_id, profile_id, mailbox_id, span, bucket, messages, recipients)
    SELECT of_organization, of_profile, of_mailbox, s, date_bin(s * interval '1 second', moment, 'epoch'), 1,
      with_recipients
    FROM unnest(ARRAY[1, 300]) AS s
    ON CONFLICT (profile_id, mailbox_id, span, bucket)
    DO UPDATE SET messages = u.messages + 1, recipients = u.recipients + with_recipients;
END
$$;

-- Finds the next message and counts it. The caller holds the lock on the mailbox's row of the schedule, so lanes come one
-- after the other; the profile's mailboxes do by a lock of their own, which is asked for only where they share a quota.
CREATE FUNCTION take_outgoing(
  of_organization bigint, of_mailbox bigint, of_profile bigint, own jsonb, shared jsonb, OUT email_id bigint,
  OUT recipients int, OUT opens_at timestamptz, OUT why text
) LANGUAGE plpgsql AS $$
DECLARE
  pending int;
BEGIN
  IF shared IS NOT NULL THEN
    PERFORM pg_advisory_xact_lock(1936027236, (of_profile % 2147483647)::int);
  END IF;
  SELECT n.email_id, n.recipients, n.opens_at, n.why INTO email_id, recipients, opens_at, why
    FROM next_outgoing(of_mailbox, of_profile, own, shared) n;
  IF email_id IS NULL OR opens_at IS NOT NULL THEN RETURN; END IF;
  -- A person may have taken it back meanwhile: then nothing is counted.
  PERFORM 1 FROM outgoing_email e WHERE e.id = take_outgoing.email_id AND e.state = 'pending-send' FOR UPDATE;
  IF NOT FOUND THEN
    email_id := NULL;
    RETURN;
  END IF;
  SELECT count(*) INTO pending FROM outgoing_recipient r WHERE r.email_id = take_outgoing.email_id
    AND r.state = 'pending';
  pending := least(pending, recipients);
  IF own IS NOT NULL THEN PERFORM count_sent(of_organization, of_profile, of_mailbox, pending); END IF;
  IF shared IS NOT NULL THEN PERFORM count_sent(of_organization, of_profile, 0, pending); END IF;
END
$$;

SELECT protect_tenant_table(name::regclass) FROM unnest(ARRAY['send_usage', 'send_pace', 'alert_mail']) AS name;
GRANT SELECT, INSERT, UPDATE, DELETE ON send_usage, send_pace TO postrider_worker;
GRANT SELECT ON send_usage, send_pace TO postrider_api;
GRANT DELETE ON send_pace TO postrider_api;
GRANT SELECT, INSERT, UPDATE ON alert_mail TO postrider_api;
GRANT SELECT, UPDATE ON alert_mail TO postrider_worker;
-- The scheduler hands alert mail over.
GRANT INSERT ON outgoing_email, outgoing_recipient TO postrider_worker;
GRANT USAGE ON SEQUENCE outgoing_email_id_seq TO postrider_worker;
