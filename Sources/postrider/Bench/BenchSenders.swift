import Foundation
import Logging
import PostgresStore
import PostriderCore

/// An organization whose mailboxes send to one server, in a fresh database.
struct BenchSenders: Sendable {
  let mailboxes: [MailboxID]
  let profile: ProfileID
  /// Decrypts the mailboxes' passwords.
  let keyRing: KeyRing
  private let url: String

  /// Migrates the database and makes them, enabled, as an administrator does.
  static func create(_ count: Int, server: ServerDraft, connections: Int, in url: String) async throws -> BenchSenders {
    let logger = Logger(label: "postrider.bench")
    Bench.say("Creating \(count) mailboxes …")
    _ = try await Migrator(url: url, applicationURL: url, logger: logger).migrate()
    let (_, token) = try await Bootstrap(url: url, logger: logger).ensureOrganization(
      name: "Benchmark", administratorName: "Administrator", administratorAddress: "admin@bench.test")
    let keyRing = KeyRing.generate()
    let store = PostgresStore(
      configuration: PostgresStoreConfiguration(url: url, poolSize: 2, keyRing: keyRing), logger: logger)
    guard let principal = try await store.principal(token: token) else {
      throw BenchFailure(description: "the administrator's token is unknown")
    }
    let draft = ProfileDraft(
      name: "Bench", type: .pop3SMTP, incoming: server, outgoing: server, useSameSettingsForOutgoing: true,
      minimumPollingIntervalMinutes: 5, maximumConcurrentConnections: connections, connectionTimeoutSeconds: 30)
    let profile = try await store.createProfile(
      try ProfileRules(allowsNonTLSMail: true).resolve(draft), by: principal)
    var mailboxes: [MailboxID] = []
    for number in 1...count {
      let mailbox = MailboxDraft(
        address: "m\(number)@bench.test", owner: OwnerDraft(kind: .user), profileID: profile.id,
        incomingMethod: SyncMethod.none, outgoingMethod: .serverSideSync, password: Secret("secret"))
      mailboxes.append(try await store.createMailbox(mailbox, by: principal).id)
    }
    _ = try await store.setApproval(.approved, of: mailboxes, by: principal)
    await store.close()
    let ids = mailboxes.map(\.description).joined(separator: ",")
    try PostgresProbe(url: url).run(
      """
      BEGIN;
      UPDATE mailbox SET outgoing_status = 'success', outgoing_enabled = true WHERE id IN (\(ids));
      SELECT refresh_may_run(ARRAY[\(ids)]::bigint[]);
      COMMIT;
      """)
    return BenchSenders(mailboxes: mailboxes, profile: profile.id, keyRing: keyRing, url: url)
  }

  /// The sending jobs of some of the mailboxes.
  func jobs(of mailboxes: [MailboxID]) -> [Job] {
    let now = Int64(Date().timeIntervalSince1970 * 1_000)
    return mailboxes.map {
      Job(id: JobID(mailbox: $0, kind: .send), profile: profile, jobClass: .send, dueMilliseconds: now)
    }
  }

  /// Submits so many messages from each of some mailboxes, with so many octets each, in the rows that the API would write.
  func submit(_ count: Int, octets: Int, from mailboxes: [MailboxID], _ database: PostgresProbe) throws {
    let ids = mailboxes.map(\.description).joined(separator: ",")
    // Lines of 64 octets; a chunk has 1 MiB at most.
    let chunks = (octets + 1_048_575) / 1_048_576
    let lines = octets / chunks / 64
    try database.run(
      """
      BEGIN;
      CREATE TEMPORARY TABLE made ON COMMIT DROP AS
        SELECT nextval('outgoing_email_id_seq') AS n, m.id AS mailbox_id, m.organization_id, m.address,
          nextval('content_id_seq') AS content
        FROM mailbox m, generate_series(1, \(count)) WHERE m.id IN (\(ids));
      CREATE TEMPORARY TABLE raw ON COMMIT DROP AS
        SELECT n, position, convert_to(CASE position WHEN 0 THEN E'From: <' || address || E'>\\r\\nTo: <to@bench.test>\\r\\n'
          || E'Subject: A message of the benchmark\\r\\nMessage-ID: <m' || n || E'@bench.test>\\r\\n\\r\\n' ELSE '' END
          || repeat(repeat('x', 62) || E'\\r\\n', \(lines)), 'UTF8') AS octets
        FROM made, generate_series(0, \(chunks - 1)) AS position;
      INSERT INTO content (id, organization_id, size_octets)
        SELECT content, made.organization_id, sum(octet_length(octets)) FROM made JOIN raw USING (n) GROUP BY 1, 2;
      INSERT INTO content_chunk (content_id, position, organization_id, octets)
        SELECT content, position, organization_id, octets FROM made JOIN raw USING (n);
      INSERT INTO outgoing_email (id, organization_id, mailbox_id, state, priority, next_try_at, message_id, subject,
          sender, content_id, size_octets)
        SELECT n, m.organization_id, mailbox_id, 'pending-send', 1, now(), 'm' || n || '@bench.test', 'x', address,
          content, size_octets FROM made m JOIN content c ON c.id = m.content;
      INSERT INTO outgoing_recipient (email_id, position, organization_id, address)
        SELECT n, 0, organization_id, 'to@bench.test' FROM made;
      UPDATE mailbox_schedule s SET requested = requested + 1, next_due_at = now(), reason = 'request'
        WHERE s.mailbox_id IN (\(ids)) AND s.kind = 's';
      COMMIT;
      """)
    // What autovacuum does within a minute: nobody's database has tables that were empty a second ago.
    try database.run("ANALYZE outgoing_email, outgoing_recipient, content, content_chunk, mailbox_schedule, send_pace")
  }

  /// Whether every message was sent and every session's outcome is written; throws when one was not sent.
  func isDone(_ database: PostgresProbe) throws -> Bool {
    let row = try database.run(
      """
      SELECT (SELECT count(*) FROM mailbox_schedule WHERE kind = 's' AND enabled AND next_due_at IS NOT NULL),
        (SELECT count(*) FROM outgoing_email WHERE state IN ('failed', 'partly-sent', 'uncertain')),
        (SELECT string_agg(DISTINCT failure::text, '; ') FROM outgoing_email WHERE failure IS NOT NULL)
      """)[0]
    guard row[1] == "0" else { throw BenchFailure(description: "\(row[1]) messages were not sent: \(row[2])") }
    return row[0] == "0"
  }
}
