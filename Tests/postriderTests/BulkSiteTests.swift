import AdminServer
import Foundation
import PostgresStore
import PostriderCore
import PostriderTesting
import Testing

@testable import postrider

/// Imports and batches from the command line against a real API, with two processes' runners, and a real database.
@Suite("Bulk work from the command line (features T1, M3, A1)", .timeLimit(.minutes(10)))
struct BulkSiteTests {
  private func withSite(
    _ body:
      @escaping @Sendable (TestCluster, @escaping @Sendable ([String]) async throws -> Program.Result) async throws
      -> Void
  ) async throws {
    let cluster = try await TestCluster.make()
    let (_, token) = try await Bootstrap(url: cluster.databaseURL, logger: cluster.logger).ensureOrganization(
      name: "Test", administratorName: "Ada", administratorAddress: "ada@example.org")
    let folder = FileManager.default.temporaryDirectory.appending(path: "b-\(UUID().uuidString.prefix(8))").path
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let queue = try cluster.makeQueue()
    let second = cluster.makeStore()
    let api = AdminServer(
      configuration: AdminServerConfiguration(unixSocket: folder + "/api.sock"), store: cluster.store, queue: queue,
      logger: cluster.logger)
    let environment = [
      "POSTRIDER_API_URL": "http+unix://" + (folder + "/api.sock").replacing("/", with: "%2F"),
      "POSTRIDER_TOKEN": token.revealed,
    ]
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await queue.run() }
      group.addTask { try await api.run() }
      for store in [cluster.store, second] {
        group.addTask {
          try await BatchRunner(queue: store, idleWait: .milliseconds(50), logger: cluster.logger).run()
        }
      }
      _ = try await api.listening()
      try await body(cluster) { try await Program.run($0, environment: environment) }
      group.cancelAll()
    }
    await second.close()
    await cluster.close()
  }

  @Test(
    "a file is imported, its wrong rows are listed, all is approved, a test is counted when it was done, and the rest canceled"
  )
  func wholeWay() async throws {
    try await withSite { cluster, run in
      let profile = try await cluster.profile(
        "Mail", incoming: ServerDraft(host: "127.0.0.1", port: 1, tls: TLSMode.none))
      let file = FileManager.default.temporaryDirectory.appending(path: "m-\(UUID().uuidString.prefix(8)).csv").path
      defer { try? FileManager.default.removeItem(atPath: file) }
      var lines = (1...1_400).map { "m\($0)@example.com,Mail,secret-\($0)" }
      lines[9] = "nonsense,Mail,secret-word"
      lines[10] = "m11@example.com,Nobody,secret-word"
      try ("address,profile,password\n" + lines.joined(separator: "\n")).write(
        toFile: file, atomically: true, encoding: .utf8)

      let dry = try await run(["mailbox", "import", file, "--dry-run"])
      #expect(dry.exitCode == 1 && dry.output.contains("1398 mailboxes would be created, 2 failed"), "\(dry.errors)")
      #expect(try await cluster.sql("SELECT count(*) FROM mailbox") == "0")
      let made = try await run(["mailbox", "import", file])
      #expect(made.exitCode == 1 && made.output.contains("1398 mailboxes created, 2 failed"), "\(made.errors)")
      #expect(made.output.contains("must be an e-mail address") && made.output.contains("called Nobody"))
      #expect(!made.output.contains("secret-word"))
      let again = try await run(["mailbox", "import", file, "--json"])
      let answer = try JSONCoding.decoder().decode(BatchWatcher.Answer.self, from: Data(again.output.utf8))
      #expect(answer.batch.unchanged == 1_398 && answer.failures.map(\.row) == [11, 12])
      #expect(try await cluster.sql("SELECT count(*) FROM mailbox") == "1398")

      let approved = try await run(["mailbox", "approve", "--view", "pending-approval", "--yes"])
      #expect(
        approved.exitCode == 0 && approved.output.contains("1398 mailboxes approved (batch"), "\(approved.errors)")
      let tested = try await run(["mailbox", "test", "--profile", "Mail", "--yes", "--no-wait", "--json"])
      let batch = try JSONCoding.decoder().decode(Batch.self, from: Data(tested.output.utf8))
      #expect(batch.total == 1_398 && batch.filter == BatchFilter(profileID: profile.id))
      #expect(
        await eventually(within: .seconds(120)) {
          (try? await cluster.store.batch(batch.id, for: cluster.principal).waiting) == 1_398
        })
      // No worker runs here; one test is answered by hand.
      try await cluster.sql(
        """
        UPDATE mailbox SET incoming_status = 'success', outgoing_status = 'success' WHERE address = 'm7@example.com';
        UPDATE mailbox_schedule SET served = requested WHERE kind = 't'
          AND mailbox_id = (SELECT id FROM mailbox WHERE address = 'm7@example.com')
        """)
      #expect(
        await eventually(within: .seconds(120)) {
          (try? await cluster.store.batch(batch.id, for: cluster.principal).done) == 1
        })
      let canceled = try await run(["batch", "cancel", "\(batch.id)"])
      #expect(canceled.exitCode == 0)
      let watched = try await run(["batch", "watch", "\(batch.id)"])
      #expect(
        watched.exitCode == 1
          && watched.output.contains("1 mailbox tested and working, 1397 not done, because it was canceled"))
      #expect(try await cluster.sql("SELECT count(*) FROM mailbox_schedule WHERE requested > served") == "0")
    }
  }
}
