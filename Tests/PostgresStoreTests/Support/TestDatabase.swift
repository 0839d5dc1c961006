import FoundationEssentials
import Logging
import PostriderCore
import Synchronization

@testable import PostgresStore

/// A database of its own for one test, copied from the migrated template, with an organization and its administrator.
final class TestDatabase: Sendable {
  let server: TestServer
  let name: String
  let store: PostgresStore
  let ring: KeyRing
  let principal: Principal
  let token: Secret
  private let fences = Mutex<Int64>(1 << 32)

  static let counter = Mutex(0)

  /// Runs a test with a database; closes the store and drops the database afterwards.
  static func with(
    poolSize: Int = 4, _ body: @Sendable (TestDatabase) async throws -> Void
  ) async throws {
    let server = try await TestServer.shared.value
    let database = try await TestDatabase(server: server, template: "template_postrider", poolSize: poolSize)
    do {
      try await body(database)
    } catch {
      await database.drop()
      throw error
    }
    await database.drop()
  }

  init(server: TestServer, template: String, poolSize: Int) async throws {
    self.server = server
    name =
      "t_"
      + Self.counter.withLock { counter in
        counter += 1
        return String(counter)
      }
    try await server.sql("postgres", "CREATE DATABASE \(name) TEMPLATE \(template) OWNER pr_owner")
    ring = KeyRing.generate()
    store = PostgresStore(
      configuration: PostgresStoreConfiguration(
        url: server.url("pr_app", name), poolSize: poolSize, keyRing: ring, connectTimeout: .seconds(20)),
      logger: .test)
    let made = try await Bootstrap(url: server.url("pr_owner", name), logger: .test).createOrganization(
      name: "Example", administratorName: "Ada", administratorAddress: "ada@example.com")
    token = made.token
    guard let principal = try await store.principal(token: made.token) else { throw TimedOut(what: "a principal") }
    self.principal = principal
  }

  func drop() async {
    await store.close()
    // What is left over goes with the server.
    _ = try? await server.sql("postgres", "DROP DATABASE \(name) WITH (FORCE)")
  }

  @discardableResult
  func sql(_ sql: String, _ parameters: [PostgresValue] = []) async throws -> ResultSet {
    try await server.sql(name, sql, parameters)
  }

  func int(_ sql: String, _ parameters: [PostgresValue] = []) async throws -> Int64 {
    var row = try await self.sql(sql, parameters)[0]
    return try row.int()
  }

  func nextFence() -> Fence {
    Fence(
      fences.withLock { fence in
        fence += 1
        return fence
      })
  }

  /// Another organization with its administrator.
  func otherPrincipal() async throws -> Principal {
    let made = try await Bootstrap(url: server.url("pr_owner", name), logger: .test).ensureOrganization(
      name: "Other", administratorName: "Olga", administratorAddress: "olga@example.org")
    guard let principal = try await store.principal(token: made.token) else { throw TimedOut(what: "a principal") }
    return principal
  }

  func profile(_ name: String = "Mail", isDefault: Bool = true, minimum: Int? = nil) async throws -> ServerProfile {
    let draft = ProfileDraft(
      name: name, type: .pop3SMTP, isDefault: isDefault, incoming: ServerDraft(host: "pop.example.com"),
      outgoing: ServerDraft(host: "smtp.example.com"), minimumPollingIntervalMinutes: minimum)
    return try await store.createProfile(try ProfileRules().resolve(draft), by: principal)
  }

  func mailbox(_ address: String, password: String? = "hunter2") async throws -> Mailbox {
    try await store.createMailbox(
      MailboxDraft(address: address, password: password.map { Secret($0) }), by: principal)
  }

  func lease(_ id: MailboxID, _ kind: JobKind, _ profile: ProfileID) -> Lease {
    Lease(
      job: JobID(mailbox: id, kind: kind), profile: profile, jobClass: .poll, fence: nextFence(), dueMilliseconds: 0,
      trustedUntil: .now + .seconds(15))
  }

  /// Claims a job that must be runnable.
  func assignment(_ mailbox: Mailbox, _ kind: JobKind) async throws -> (Lease, Assignment) {
    let lease = lease(mailbox.id, kind, mailbox.profileID ?? ProfileID(1))
    guard case .run(let assignment) = try await store.check([lease])[lease.job] else {
      throw TimedOut(what: "a runnable \(kind.word)")
    }
    return (lease, assignment)
  }

  func outcome(
    _ lease: Lease, _ assignment: Assignment, next: NextDue = NextDue(at: nil, reason: "slot"), failures: Int = 0,
    directions: [DirectionChange] = [], alerts: [AlertChange] = [], failure: Failure? = nil, steps: [TraceStep] = []
  ) -> SessionOutcome {
    let now = Date()
    return SessionOutcome(
      writer: guardian(lease, assignment), profileID: lease.profile, served: assignment.requested, next: next,
      failures: failures, failureCode: failure?.code, directions: directions, alerts: alerts,
      run: RunRecord(
        mailboxID: lease.job.mailbox, kind: lease.job.kind, trigger: assignment.trigger, worker: "w1",
        fence: lease.fence, dueAt: assignment.dueAt, startedAt: now, finishedAt: now + 0.25,
        result: failure == nil ? .success : .failure, failure: failure, messagesStored: 2, octetsStored: 2_048,
        steps: steps))
  }

  func guardian(_ lease: Lease, _ assignment: Assignment) -> SessionGuard {
    SessionGuard(
      job: lease.job, organizationID: assignment.settings.organizationID, generation: assignment.generation,
      fence: lease.fence)
  }

  /// A mailbox that is approved, tested and enabled in both directions.
  func runningMailbox(_ address: String) async throws -> Mailbox {
    let mailbox = try await mailbox(address)
    _ = try await store.setApproval(.approved, of: [mailbox.id], by: principal)
    try await pass(mailbox)
    return try await store.mailbox(mailbox.id, for: principal)
  }

  /// Requests a test and passes it.
  func pass(_ mailbox: Mailbox) async throws {
    _ = try await store.requestTest(of: [mailbox.id], by: principal)
    let (lease, assignment) = try await assignment(mailbox, .test)
    let result = try await store.commit(
      outcome(
        lease, assignment,
        directions: [
          DirectionChange(.incoming, status: .success, enabled: true),
          DirectionChange(.outgoing, status: .success, enabled: true),
        ]))
    guard case .written = result else { throw TimedOut(what: "a written test") }
  }
}

extension ReceivedMessage {
  static func sample(_ uidl: String, octets: Int = 100, text: String = "Hello") -> ReceivedMessage {
    ReceivedMessage(
      uidl: uidl,
      envelope: MessageEnvelope(
        messageID: "\(uidl)@example.com", subject: "Subject of \(uidl)",
        from: [EmailAddress(name: "Bob \"B\"", address: "bob@example.com")],
        to: [EmailAddress(address: "ada@example.com")], references: ["a@b", "c@d"],
        date: Date(timeIntervalSince1970: 1_700_000_000)),
      text: text, raw: .bytes((0..<octets).map { UInt8(truncatingIfNeeded: $0 &* 31) }),
      contentHash: [UInt8](repeating: 7, count: 32))
  }
}
