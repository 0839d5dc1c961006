import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Batches that wait for workers", .timeLimit(.minutes(3)))
struct BatchWaitTests {
  @Test("T1: done and failed follow the tests, not the requests")
  func tests() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      let profile = try await database.profile()
      let ids = try await database.mailboxes(4)
      _ = try await store.setApproval(.approved, of: Array(ids[0..<3]), by: database.principal)
      let made = try await store.createBatch(
        BatchDraft(verb: .test, filter: BatchFilter(profileID: profile.id)), by: database.principal)
      try await database.advance()
      var batch = try await store.batch(made.id, for: database.principal)
      #expect(batch.done == 0 && batch.failed == 1 && batch.waiting == 3 && batch.remaining == 3)
      #expect(batch.state == .running && batch.failures?.first?.code == "not-approved")
      #expect(
        try await database.int(
          "SELECT count(*) FROM mailbox_schedule WHERE kind = 't' AND job_class = 3 AND requested = 1")
          == 3)

      let first = try await store.mailbox(ids[0], for: database.principal)
      let (lease, assignment) = try await database.assignment(first, .test)
      _ = try await store.commit(
        database.outcome(
          lease, assignment,
          directions: [
            DirectionChange(.incoming, status: .success, enabled: true),
            DirectionChange(.outgoing, status: .success, enabled: true),
          ]))
      let second = try await store.mailbox(ids[1], for: database.principal)
      let (lease2, assignment2) = try await database.assignment(second, .test)
      let failure = Failure(.authRejected)
      _ = try await store.commit(
        database.outcome(
          lease2, assignment2,
          directions: [
            DirectionChange(.incoming, status: .failure, enabled: false, failureCode: .authRejected),
            DirectionChange(.outgoing, status: .success, enabled: true),
          ], failure: failure))
      try await eventually("the two tests are counted") {
        try await database.advance()
        let batch = try await store.batch(made.id, for: database.principal)
        return batch.done == 1 && batch.failed == 2
      }
      batch = try await store.batch(made.id, for: database.principal)
      #expect(batch.waiting == 1 && batch.remaining == 1 && batch.state == .running)
      let failed = try await store.batchResults(of: made.id, in: .failed, PageRequest(), for: database.principal)
      #expect(failed.items.map(\.code) == ["auth.rejected", "not-approved"])
      #expect(failed.items.first?.message == FailureCode.authRejected.summary)

      let third = try await store.mailbox(ids[2], for: database.principal)
      try await database.sql("DELETE FROM mailbox WHERE id = $1", [.id(third.id)])
      let over = try await database.finish(made)
      #expect(over.state == .finished && over.done == 1 && over.failed == 3 && over.waiting == 0)
    }
  }

  @Test("a canceled batch takes its tests back, but not those that somebody else asked for")
  func cancel() async throws {
    try await TestDatabase.with { database in
      let store = database.store
      _ = try await database.profile()
      let ids = try await database.mailboxes(3)
      _ = try await store.setApproval(.approved, of: ids, by: database.principal)
      let made = try await store.createBatch(
        BatchDraft(verb: .test, filter: BatchFilter()), by: database.principal)
      try await database.advance()
      _ = try await store.requestTest(of: [ids[1]], by: database.principal)
      let canceling = try await store.cancelBatch(made.id, by: database.principal)
      #expect(canceling.state == .canceling)
      #expect(try await store.cancelBatch(made.id, by: database.principal).state == .canceling)
      let over = try await database.finish(made)
      #expect(over.state == .canceled && over.waiting == 0 && over.remaining == 3 && over.done == 0)
      let open = "SELECT count(*) FROM mailbox_schedule WHERE kind = 't' AND requested > served"
      #expect(try await database.int(open) == 1)
      let profile = try #require(try await store.mailbox(ids[0], for: database.principal).profileID)
      let lease = database.lease(ids[0], .test, profile)
      guard case .skip("not-due") = try await store.check([lease])[lease.job] else {
        Issue.record("a test that was taken back still runs")
        return
      }
      let rows = try await store.batchResults(of: made.id, in: .canceled, PageRequest(), for: database.principal)
      #expect(rows.total == 3)
      await #expect(throws: StoreError.self) { try await store.cancelBatch(made.id, by: database.principal) }
      // One that has not begun is over at once; its rows are canceled without being written.
      let other = try await store.createBatch(
        BatchDraft(verb: .reject, filter: BatchFilter()), by: database.principal)
      #expect(try await store.cancelBatch(other.id, by: database.principal).state == .canceled)
      try await database.advance()
      #expect(try await database.int("SELECT count(*) FROM mailbox WHERE approval = 'rejected'") == 0)
      #expect(
        try await store.batchResults(of: other.id, in: .canceled, PageRequest(), for: database.principal).total == 3)
      #expect(
        try await store.batchResults(of: other.id, in: .pending, PageRequest(), for: database.principal).total == 0)
    }
  }
}
