import Foundation
import PostriderCore
import PostriderTesting
import PrivateServers
import RedisQueue
import Synchronization

/// A deployment whose mailboxes send to a sink.
final class SendClusterStage: Sendable {
  let options: SendOptions
  let servers: ChaosServers
  let census = SessionCensus()
  let sink: SendSink
  let fleet: Fleet
  let mailboxes: [MailboxID]
  /// How many messages were submitted; a message's number is its identity.
  private let submitted = Mutex(0)

  var cluster: TestCluster { servers.cluster }

  init(_ options: SendOptions) async throws {
    self.options = options
    servers = try await ChaosServers.start(leaseSeconds: options.leaseSeconds)
    sink = SendSink(census: census, answerMilliseconds: options.answerMilliseconds, seed: options.seed &+ 1)
    let cluster = servers.cluster
    var mailboxes: [MailboxID] = []
    // One server pipelines, the other does not. Each has an address of its own, as login budgets go by the host.
    for (index, pipelines) in [true, false].enumerated() {
      let host = "127.0.1.\(index + 1)"
      let server = ServerDraft(
        host: host, port: try await sink.open(host: host, pipelines: pipelines), tls: TLSMode.none)
      let profile = try await cluster.profile(
        "Profile \(index)", incoming: server, outgoing: server, connections: options.connections)
      let addresses = (index..<options.mailboxes).filter { $0 % 2 == index }.map { "m\($0)@chaos.test" }
      for address in addresses { census.expect(.mailbox(address), limit: options.connections) }
      mailboxes += try await cluster.mailboxes(addresses, on: profile, outgoing: .serverSideSync)
    }
    self.mailboxes = mailboxes
    let ids = mailboxes.map(\.description).joined(separator: ",")
    try await cluster.sql(
      """
      BEGIN;
      UPDATE mailbox SET outgoing_status = 'success', outgoing_enabled = true WHERE id IN (\(ids));
      SELECT announce_jobs(array(SELECT refresh_may_run(ARRAY[\(ids)]::bigint[])));
      COMMIT;
      """)
    if let mistake = options.mistake { try await cluster.sql(mistake.trigger) }
    fleet = Fleet(servers, sessionsPerWorker: options.sessionsPerWorker)
  }

  /// How many messages were submitted.
  var messages: Int { submitted.withLock { $0 } }

  /// Fills up each mailbox's list, in the transaction in which a person would submit. Of twenty messages one is large; the
  /// first mailbox has so much to send that it opens lanes. Throws while PostgreSQL is away; then nothing was submitted.
  func submit() async throws {
    let chunks = SendSink.largeOctets >> 20
    let output = try await cluster.sql(
      """
      BEGIN;
      CREATE TEMPORARY TABLE made ON COMMIT DROP AS
        SELECT nextval('outgoing_email_id_seq') AS n, m.id AS mailbox_id, m.organization_id, m.address,
          nextval('content_id_seq') AS content
        FROM mailbox m CROSS JOIN LATERAL (SELECT count(*) AS waiting FROM outgoing_email e
          WHERE e.mailbox_id = m.id AND e.state = 'pending-send') w
        CROSS JOIN LATERAL generate_series(w.waiting + 1,
          CASE WHEN m.id = (SELECT min(id) FROM mailbox) THEN 110 ELSE 12 END);
      CREATE TEMPORARY TABLE raw ON COMMIT DROP AS
        SELECT n, 0 AS position, convert_to(E'Message-ID: <m' || n || E'@chaos.test>\\r\\nSubject: n' || n
          || E'\\r\\n\\r\\nHello.\\r\\n' || CASE WHEN n % 20 = 7 THEN '' ELSE E'.\\r\\n.dots\\r\\n' END
          || repeat(E'One of several lines of a message.\\r\\n', (n % 40)::int), 'UTF8') AS octets FROM made;
      -- 1,024 lines of 1,024 octets are a chunk.
      INSERT INTO raw SELECT n, g, convert_to(repeat(repeat('x', 1022) || E'\\r\\n', 1024), 'UTF8')
        FROM made, generate_series(1, \(chunks)) g WHERE n % 20 = 7;
      INSERT INTO content (id, organization_id, size_octets)
        SELECT content, organization_id, (SELECT sum(octet_length(octets)) FROM raw WHERE raw.n = made.n) FROM made;
      INSERT INTO content_chunk (content_id, position, organization_id, octets)
        SELECT content, position, organization_id, octets FROM made JOIN raw USING (n);
      INSERT INTO outgoing_email (id, organization_id, mailbox_id, state, priority, next_try_at, message_id, subject,
          sender, content_id, size_octets)
        SELECT n, organization_id, mailbox_id, 'pending-send', 1, now(), 'm' || n || '@chaos.test', 'n' || n, address,
          content, (SELECT sum(octet_length(octets)) FROM raw WHERE raw.n = made.n) FROM made;
      INSERT INTO outgoing_recipient (email_id, position, organization_id, address)
        SELECT n, 0, organization_id, 'r' || n || '@sink.test' FROM made;
      UPDATE mailbox_schedule s SET requested = requested + 1, next_due_at = now(), reason = 'request'
        FROM (SELECT DISTINCT mailbox_id FROM made) d WHERE s.mailbox_id = d.mailbox_id AND s.kind = 's';
      SELECT announce_jobs(array(SELECT DISTINCT mailbox_id || 's' FROM made));
      SELECT 'made', count(*) FROM made;
      COMMIT;
      """)
    let made = output.split(separator: "\n").last { $0.hasPrefix("made|") }.flatMap { Int($0.dropFirst(5)) } ?? 0
    submitted.withLock { $0 += made }
  }

  func stop() async {
    await fleet.stop()
    await sink.stop()
    await cluster.close()
    await servers.redis.stop()
    await servers.postgres.stop()
  }
}
