import AdminServer
import Foundation
import Logging
import PostgresStore
import PostriderCore
import Synchronization

/// `bench bulk`: many mailboxes approved by a batch, beside one bare UPDATE of as many, while polls of the same mailboxes
/// go on; then a file of as many is imported.
struct BulkBench: Sendable {
  let command: BenchBulkCommand
  let servers: BenchServers

  /// Polls under way at once, each with a pause of ``pollPause``.
  private static let pollers = 4
  private static let pollPause: Duration = .milliseconds(20)

  func run(_ report: inout BenchReport) async throws {
    let url = try await servers.databaseURL()
    try Machine.addPostgresBatch(url: url, seconds: 1, to: &report)
    report.load["mailboxes"] = .integer(command.mailboxes)
    let past = Date(timeIntervalSinceNow: -3_600)
    let tenant = try await BenchTenant.create(
      [.init(mailboxes: command.mailboxes, profiles: max(1, command.mailboxes / 1_000))], in: url,
      interval: .seconds(300), due: { _ in past })
    let probe = try PostgresProbe(url: url)
    // Mailboxes of queues are polled whether they are approved or not: so polls and the batch meet on the same rows.
    try probe.run("UPDATE organization SET approved_queues_only = false")
    try reset(probe)
    Bench.say("One bare UPDATE …")
    let bare = try Self.seconds {
      try probe.run("UPDATE mailbox SET approval = 'approved', version = version + 1, updated_at = now()")
    }
    try reset(probe)
    let principal = Principal(
      organizationID: tenant.organization, userID: UserID(Int64(try probe.number("SELECT min(id) FROM app_user"))),
      name: "Bench", role: .administrator)
    let store = PostgresStore(
      configuration: PostgresStoreConfiguration(
        url: url, poolSize: Self.pollers + 2, keyRing: KeyRing.generate()),
      logger: Logger(label: "postrider.bench"))
    Bench.say("Polls alone …")
    let quiet = try await polls(of: tenant, store) {
      try await Task.sleep(for: .seconds(min(command.options.seconds, 10)))
    }
    Bench.say("The batch, with polls …")
    let found = Mutexed<(seconds: Double, create: Double)>()
    let busy = try await polls(of: tenant, store) {
      let began = ContinuousClock.now
      let batch = try await store.createBatch(BatchDraft(verb: .approve, filter: BatchFilter()), by: principal)
      let created = ContinuousClock.now
      while try await store.advanceBatch() == .worked {}
      found.value = ((.now - began).inSeconds, (created - began).inSeconds)
      let over = try await store.batch(batch.id, for: principal)
      guard over.done == command.mailboxes, over.state == .finished else {
        throw BenchFailure(description: "\(over.done) of \(command.mailboxes) were done, \(over.failed) failed")
      }
    }
    Bench.say("A file of as many, every hundredth row wrong …")
    try await importFile(store, principal, &report)
    await store.close()
    guard quiet.count > 0, busy.count > 0 else { throw BenchFailure(description: "no mailbox was polled") }
    guard let found = found.value else { throw BenchFailure(description: "the batch did not end") }
    report.add("approve_s", found.seconds, "a batch that approves all mailboxes", goal: .atMost(20))
    report.add("create_s", found.create, "of it, until it is accepted")
    report.add("update_s", bare, "one bare UPDATE of as many rows, in one transaction, without audit")
    report.add("ratio_to_update", found.seconds / bare, "batch over bare UPDATE")
    report.add("poll_p99_ms_alone", quiet.percentile(0.99), "a poll's two transactions, without the batch")
    report.add("poll_p99_ms", busy.percentile(0.99), "the same while the batch works on the same mailboxes")
    report.add("poll_max_ms", busy.percentile(1), "the slowest of them", goal: .atMost(1_000))
  }

  /// Imports a file with passwords, first as a dry run: read, checked, stored and carried out.
  private func importFile(_ store: PostgresStore, _ principal: Principal, _ report: inout BenchReport) async throws {
    let rows = min(command.mailboxes, MailboxImportReader.maximumRows)
    for dryRun in [true, false] {
      let began = ContinuousClock.now
      var reader = MailboxImportReader()
      let id = try await store.beginImport(dryRun: dryRun, by: principal)
      var part = try reader.append("address,ownerKind,incomingMethod,userName,password\n".utf8)
      for row in 1...rows {
        let method = row % 100 == 0 ? "sometimes" : "server-side-sync"
        part += try reader.append("import\(row)@bench.test,user,\(method),import\(row),secret\(row)\n".utf8)
        if part.count == 1_000 || row == rows {
          try await store.addImportRows(part, to: id, by: principal)
          part = []
        }
      }
      part = try reader.finish()
      _ = try await store.finishImport(id, by: principal)
      while try await store.advanceBatch() == .worked {}
      let batch = try await store.batch(id, for: principal)
      guard part.isEmpty, batch.state == .finished, batch.failed == rows / 100, batch.done == rows - rows / 100 else {
        throw BenchFailure(description: "\(batch.done) of \(rows) rows were imported, \(batch.failed) failed")
      }
      let seconds = (.now - began).inSeconds
      if dryRun {
        report.add("import_dry_s", seconds, "a file of as many mailboxes with passwords, read and compared")
      } else {
        report.add("import_s", seconds, "the same file, imported", goal: .atMost(60))
      }
    }
  }

  private func reset(_ probe: PostgresProbe) throws {
    try probe.run("UPDATE mailbox SET approval = 'pending'")
    try probe.run("VACUUM (FULL, ANALYZE) mailbox")
    try probe.run("CHECKPOINT")
  }

  private static func seconds(_ body: () throws -> Void) rethrows -> Double {
    let began = ContinuousClock.now
    try body()
    return (.now - began).inSeconds
  }

  /// Polls random mailboxes while a closure works; tells how long each took in PostgreSQL.
  private func polls(
    of tenant: BenchTenant, _ store: PostgresStore, while body: @Sendable () async throws -> Void
  ) async throws -> Samples {
    let taken = Taken()
    let rows = tenant.groups[0]
    try await withThrowingTaskGroup(of: Void.self) { group in
      for _ in 0..<Self.pollers {
        group.addTask {
          while !Task.isCancelled {
            let row = rows[Int.random(in: 0..<rows.count)]
            let lease = Lease(
              job: JobID(mailbox: row.mailbox, kind: .poll), profile: row.profile, jobClass: .poll,
              fence: taken.nextFence(), dueMilliseconds: 0,
              trustedUntil: .now + .seconds(15))
            let began = ContinuousClock.now
            // One that was polled a moment ago is not due.
            if case .run(let assignment) = try await store.check([lease])[lease.job] {
              let now = Date()
              _ = try await store.commit(WorkerRig.outcome(lease, assignment, startedAt: now, next: now))
              taken.add(.now - began)
            }
            try await Task.sleep(for: Self.pollPause)
          }
        }
      }
      try await body()
      group.cancelAll()
      do { try await group.waitForAll() } catch is CancellationError {
        // Ended in the middle of a pause.
      }
    }
    return taken.samples
  }

  /// What the pollers share.
  private final class Taken: Sendable {
    private let state = Mutex((samples: Samples(), fence: Int64(Date().timeIntervalSince1970) << 24))

    var samples: Samples { state.withLock(\.samples) }

    func add(_ duration: Duration) { state.withLock { $0.samples.add(duration) } }

    func nextFence() -> Fence {
      state.withLock { state in
        state.fence += 1
        return Fence(state.fence)
      }
    }
  }
}
