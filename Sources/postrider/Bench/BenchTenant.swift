import Foundation
import Logging
import PostgresStore
import PostriderCore

/// An organization with profiles and mailboxes that are ready to be polled, made quickly in a fresh database.
struct BenchTenant: Sendable {
  /// Mailboxes and how many profiles share them: mailbox i belongs to profile 1 + i mod `profiles`.
  struct Group: Sendable {
    var mailboxes: Int
    var profiles: Int
  }

  let url: String
  let organization: OrganizationID
  /// Each group's mailboxes with their profiles.
  let groups: [[(mailbox: MailboxID, profile: ProfileID)]]

  /// Migrates the database and fills it. Rows of `mailbox_schedule` are due at `due`.
  ///
  /// Every mailbox has its three hot rows; only the poll is scheduled. Foreign keys are not checked while filling: that
  /// alone would take longer than everything else.
  static func create(
    _ groups: [Group], in url: String, interval: Duration, due: (MailboxID) -> Date
  ) async throws -> BenchTenant {
    let logger = Logger(label: "postrider.bench")
    let count = groups.reduce(0) { $0 + $1.mailboxes }
    Bench.say("Creating \(count) mailboxes …")
    _ = try await Migrator(url: url, applicationURL: url, logger: logger).migrate()
    _ = try await Bootstrap(url: url, logger: logger).ensureOrganization(
      name: "Benchmark", administratorName: "Administrator", administratorAddress: "admin@bench.test")
    let probe = try PostgresProbe(url: url)
    let organization = OrganizationID(Int64(try probe.number("SELECT min(id) FROM organization")))
    try probe.run("SET session_replication_role = replica; SET synchronous_commit = off")
    // The store's own rows decide about intervals; minutes are as fine as a profile can say it.
    let minutes = max(1, Int(interval.inSeconds / 60))
    let profiles = groups.reduce(0) { $0 + $1.profiles }
    try probe.run(
      """
      INSERT INTO server_profile (id, organization_id, name, name_key, type, incoming_host, incoming_port, incoming_tls,
        incoming_credentials, incoming_mechanism, outgoing_host, outgoing_port, outgoing_tls, outgoing_credentials,
        outgoing_mechanism, minimum_polling_interval_minutes)
      SELECT n, \(organization), 'Bench ' || n, 'bench ' || n, 'pop3-smtp', '127.0.0.1', 995, 'implicit', 'mailbox',
        'auto', '127.0.0.1', 465, 'implicit', 'mailbox', 'auto', \(minutes)
      FROM generate_series(1, \(profiles)) AS n;
      SELECT setval('server_profile_id_seq', \(profiles));
      INSERT INTO shared_queue (id, organization_id, name, address, address_key)
        VALUES (1, \(organization), 'Bench', 'bench@bench.test', 'bench@bench.test');
      """)

    var made: [[(mailbox: MailboxID, profile: ProfileID)]] = []
    var (firstMailbox, firstProfile) = (1, 1)
    for group in groups {
      made.append(
        (0..<group.mailboxes).map { index in
          (
            MailboxID(Int64(firstMailbox + index)), ProfileID(Int64(firstProfile + index % group.profiles))
          )
        })
      firstMailbox += group.mailboxes
      firstProfile += group.profiles
    }
    let tenant = BenchTenant(url: url, organization: organization, groups: made)
    try tenant.fillMailboxes(probe)
    try tenant.fillSchedule(probe, due: due)
    return tenant
  }

  private var all: [(mailbox: MailboxID, profile: ProfileID)] { groups.flatMap { $0 } }

  private func fillMailboxes(_ probe: PostgresProbe) throws {
    try Self.copy(
      all, probe,
      """
      COPY mailbox (id, organization_id, address, address_key, queue_id, profile_id, approval, incoming_method,
        incoming_status, incoming_enabled, outgoing_method, outgoing_status, outgoing_enabled) FROM STDIN
      """
    ) { row in
      let address = "m\(row.mailbox)@bench.test"
      return "\(row.mailbox)\t\(organization)\t\(address)\t\(address)\t1\t\(row.profile)\tapproved\t"
        + "server-side-sync\tsuccess\tt\tserver-side-sync\tsuccess\tt\n"
    }
    try probe.run("SELECT setval('mailbox_id_seq', \(all.count))")
  }

  /// Makes the hot rows anew, each poll due at a moment, and leaves the table as vacuum would.
  func fillSchedule(_ probe: PostgresProbe, due: (MailboxID) -> Date) throws {
    try probe.run("SET session_replication_role = replica; TRUNCATE mailbox_schedule")
    let head = """
      COPY mailbox_schedule (mailbox_id, organization_id, profile_id, next_due_at, job_class, enabled, kind, reason)
        FROM STDIN
      """
    let format = Date.ISO8601FormatStyle(includingFractionalSeconds: true)
    try Self.copy(all, probe, head) { row in
      let (id, tail) = (row.mailbox, "\(organization)\t\(row.profile)")
      let at = due(id).formatted(format)
      return "\(id)\t\(tail)\t\(at)\t2\tt\tp\tslot\n\(id)\t\(tail)\t\\N\t1\tt\ts\t\n\(id)\t\(tail)\t\\N\t3\tt\tt\t\n"
    }
    try probe.run("VACUUM (ANALYZE) mailbox_schedule")
    try probe.run("VACUUM (ANALYZE) mailbox")
    try probe.run("CHECKPOINT")
  }

  private static func copy(
    _ rows: [(mailbox: MailboxID, profile: ProfileID)], _ probe: PostgresProbe, _ head: String,
    _ line: ((mailbox: MailboxID, profile: ProfileID)) -> String
  ) throws {
    var next = 0
    try probe.copy(head) {
      guard next < rows.count else { return "" }
      let end = min(next + 500, rows.count)
      defer { next = end }
      return rows[next..<end].reduce(into: "") { $0 += line($1) }
    }
  }
}
