import Foundation
import Logging
import PostgresStore
import PostriderCore

/// Mailboxes in all states, thirty days of runs, and alerts, made by PostgreSQL itself.
struct ListsFill: Sendable {
  let mailboxes: Int
  let runs: Int

  /// Every tenth mailbox has an alert; half of them are over.
  var alerts: Int { mailboxes / 10 }

  /// Makes everything in an empty database; returns the organization that holds nine tenths of it.
  func create(in url: String) async throws -> OrganizationID {
    Bench.say("Creating \(mailboxes) mailboxes and \(runs) runs …")
    let logger = Logger(label: "postrider.bench")
    _ = try await Migrator(url: url, applicationURL: url, logger: logger).migrate()
    for name in ["Benchmark", "Others"] {
      _ = try await Bootstrap(url: url, logger: logger).ensureOrganization(
        name: name, administratorName: "Administrator", administratorAddress: "admin@bench.test")
    }
    let probe = try PostgresProbe(url: url)
    let organization = Int64(try probe.number("SELECT id FROM organization WHERE name = 'Benchmark'"))
    let other = Int64(try probe.number("SELECT id FROM organization WHERE name = 'Others'"))
    // Foreign keys are not checked and indexes are built at the end: both at once would take longer than all the rest.
    try probe.run(
      """
      SET session_replication_role = replica; SET synchronous_commit = off; SET maintenance_work_mem = '512MB';
      CREATE TEMP TABLE later AS SELECT indexrelid::regclass::text AS name,
          replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' ON ') AS definition
        FROM pg_index i WHERE NOT indisunique
          AND indrelid IN ('mailbox'::regclass, 'mailbox_schedule'::regclass, 'run'::regclass, 'alert'::regclass);
      DO $$ DECLARE one record; BEGIN
        FOR one IN SELECT name FROM later LOOP EXECUTE 'DROP INDEX ' || one.name; END LOOP;
      END $$;
      """)
    try fillProfiles(probe, organization, other)
    try fillMailboxes(probe, organization, other)
    try fillRuns(probe, organization, other)
    try fillAlerts(probe, organization, other)
    Bench.say("Building indexes …")
    for row in try probe.run("SELECT definition FROM later") { try probe.run(row[0]) }
    for table in ["mailbox", "mailbox_schedule", "mailbox_counter", "run", "alert", "server_profile", "shared_queue"] {
      try probe.run("VACUUM (ANALYZE) \(table)")
    }
    try probe.run("CHECKPOINT")
    return OrganizationID(organization)
  }

  /// Profiles of the first organization with a thousand mailboxes each, but the first, which has half of all; one of the
  /// other.
  private func fillProfiles(_ probe: PostgresProbe, _ organization: Int64, _ other: Int64) throws {
    try probe.run(
      """
      INSERT INTO server_profile (id, organization_id, name, name_key, type, incoming_host, incoming_port, incoming_tls,
        incoming_credentials, incoming_mechanism, outgoing_host, outgoing_port, outgoing_tls, outgoing_credentials,
        outgoing_mechanism)
      SELECT n, CASE n WHEN \(profiles + 1) THEN \(other) ELSE \(organization) END, 'Bench ' || n, 'bench ' || n,
        'pop3-smtp', '127.0.0.1', 995, 'implicit', 'mailbox', 'auto', '127.0.0.1', 465, 'implicit', 'mailbox', 'auto'
      FROM generate_series(1, \(profiles + 1)) AS n;
      INSERT INTO shared_queue (id, organization_id, name, address, address_key)
        VALUES (1, \(organization), 'Bench', 'bench@bench.test', 'bench@bench.test'),
          (2, \(other), 'Bench', 'bench@bench.test', 'bench@bench.test');
      """)
  }

  private var profiles: Int { max(2, mailboxes / 1_000) }

  /// One in ten is of the other organization, inactive; of each hundred 5 are not tested, 2 failing, 1 waits for approval.
  private func fillMailboxes(_ probe: PostgresProbe, _ organization: Int64, _ other: Int64) throws {
    try probe.run(
      """
      INSERT INTO mailbox (id, organization_id, address, address_key, queue_id, profile_id, is_active, approval,
        incoming_method, incoming_status, incoming_enabled, outgoing_method, outgoing_status, outgoing_enabled, updated_at)
      SELECT n, CASE n % 10 WHEN 3 THEN \(other) ELSE \(organization) END, 'm' || n || '@bench.test',
        'm' || n || '@bench.test', CASE n % 10 WHEN 3 THEN 2 ELSE 1 END,
        CASE WHEN n % 10 = 3 THEN \(profiles + 1) WHEN n % 2 = 0 THEN 1 ELSE 2 + n % \(profiles - 1) END, n % 10 <> 7,
        CASE n % 101 WHEN 5 THEN 'pending' ELSE 'approved' END, 'server-side-sync',
        CASE WHEN n % 103 < 2 THEN 'failure' WHEN n % 103 < 7 THEN 'not-run' ELSE 'success' END, n % 103 > 6,
        'server-side-sync', CASE WHEN n % 103 BETWEEN 4 AND 6 THEN 'not-run' ELSE 'success' END, n % 103 > 6,
        now() - (n * 7919 % 2592000) * interval '1 second'
      FROM generate_series(1, \(mailboxes)::bigint) AS n;
      INSERT INTO mailbox_schedule (mailbox_id, organization_id, profile_id, next_due_at, job_class, enabled, kind, reason)
      SELECT m.id, m.organization_id, m.profile_id, CASE k.kind WHEN 'p' THEN now() + interval '5 minutes' END,
        k.job_class, true, k.kind, '' FROM mailbox m
        CROSS JOIN (VALUES ('p', 2), ('s', 1), ('t', 3)) AS k (kind, job_class);
      INSERT INTO mailbox_counter (mailbox_id, organization_id, email_count) SELECT id, organization_id, 7 FROM mailbox;
      """)
  }

  /// Evenly over thirty days, in the order of time as workers write them: 94 % polls, 5 % sends, 1 % tests; of each
  /// hundred 3 fail. The first mailbox has as many as one that is polled every five minutes.
  private func fillRuns(_ probe: PostgresProbe, _ organization: Int64, _ other: Int64) throws {
    try probe.run(
      """
      DO $$ DECLARE part text; day date; BEGIN
        FOR day IN SELECT generate_series((now() - interval '31 days')::date, (now() - interval '2 days')::date, '1 day')
        LOOP
          part := 'run_p' || to_char(day, 'YYYYMMDD');
          CONTINUE WHEN to_regclass(part) IS NOT NULL;
          EXECUTE format('CREATE TABLE %I PARTITION OF run FOR VALUES FROM (%L) TO (%L)', part,
            day || ' 00:00:00+00', (day + 1) || ' 00:00:00+00');
          EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', part);
        END LOOP;
      END $$;
      INSERT INTO run (id, organization_id, mailbox_id, kind, trigger, worker, fence, due_at, started_at, finished_at,
        result, failure_code, messages_stored, octets_stored, messages_known, messages_failed, messages_sent)
      SELECT n, CASE mailbox % 10 WHEN 3 THEN \(other) ELSE \(organization) END, mailbox,
        CASE WHEN n % 100 < 94 THEN 'p' WHEN n % 100 < 99 THEN 's' ELSE 't' END, 'slot', 'worker-1', n, at, at,
        at + interval '1 second',
        CASE WHEN n % 97 < 2 THEN 'failure' WHEN n % 97 = 2 THEN 'partial' ELSE 'success' END,
        CASE WHEN n % 97 < 3 THEN 'tcp.timeout' END, 0, 0, 0, 0, 0
      FROM (
        SELECT n, now() - interval '30 days' + n * (interval '30 days' / \(runs)) AS at,
          CASE WHEN n % greatest(\(runs) / 8640, 2) = 0 THEN 1 ELSE 1 + n * 7919 % \(mailboxes) END AS mailbox
        FROM generate_series(1, \(runs)::bigint) AS n
      ) r
      """)
  }

  private func fillAlerts(_ probe: PostgresProbe, _ organization: Int64, _ other: Int64) throws {
    try probe.run(
      """
      INSERT INTO alert (organization_id, mailbox_id, level, code, direction, text, first_seen, last_seen, resolved_at)
      SELECT m.organization_id, m.id, CASE WHEN n % 10 < 2 THEN 'error' WHEN n % 10 < 8 THEN 'warning'
        ELSE 'information' END, 'tcp.timeout', 'incoming', 'The server did not answer in time.', at, at,
        CASE n % 2 WHEN 0 THEN at + interval '1 hour' END
      FROM (SELECT n, now() - (n * 7919 % 2592000) * interval '1 second' AS at
        FROM generate_series(1, \(alerts)::bigint) AS n) a JOIN mailbox m ON m.id = a.n * 10
      """)
  }
}
