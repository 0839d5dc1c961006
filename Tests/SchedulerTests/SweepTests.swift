import PostgresStore
import PostriderCore
import PostriderTesting
import Testing

@testable import Scheduler

@Suite("The leading scheduler carries out what administration began", .serialized, .timeLimit(.minutes(5)))
struct SweepTests {
  private let upkeep = UpkeepTests()

  @Test("the job of a deleted mailbox leaves the queue, also when a session holds it for a while")
  func deletedMailbox() async throws {
    try await upkeep.withLeaders { cluster, queue in
      let profile = try await cluster.profile(incoming: self.upkeep.profileDraft)
      let held = try await cluster.mailbox("held@example.com", on: profile)
      try await cluster.enable(held)
      let lease = try #require(try await self.upkeep.claimed(queue).first)
      let other = try await cluster.mailbox("other@example.com", on: profile)
      try await cluster.enable(other)
      let waiting = JobID(mailbox: other, kind: .poll)
      try await eventually("it waits") { try await self.upkeep.place(queue, waiting, profile.id).state == "ready" }
      let answers = try await cluster.store.deleteMailboxes(
        MailboxDeletionRequest(ids: [held, other]), by: cluster.principal)
      #expect(answers.map(\.ok) == [true, true])
      try await eventually("the one that waits is gone") {
        try await self.upkeep.place(queue, waiting, profile.id).state == "absent"
      }
      try await queue.complete([lease])
      try await eventually("the other is, after its session") {
        try await self.upkeep.place(queue, lease.job, profile.id).state == "absent"
      }
      try await eventually("nothing is remembered as queued") {
        try await cluster.store.deletedMailboxes(limit: 10).isEmpty
      }
      #expect(queue.memory.verify().isEmpty)
    }
  }

  @Test("a deleted profile gives no lease any more; its mailboxes are withdrawn and run under another one")
  func deletedProfile() async throws {
    try await upkeep.withLeaders { cluster, queue in
      let old = try await cluster.profile("Old", incoming: self.upkeep.profileDraft)
      let id = try await cluster.mailbox(on: old)
      try await cluster.enable(id)
      let job = JobID(mailbox: id, kind: .poll)
      try await eventually("it waits") { try await self.upkeep.place(queue, job, old.id).state == "ready" }
      _ = try await cluster.store.deleteProfile(
        old.id, confirmsUnlinking: true, dryRun: false, by: cluster.principal)
      try await eventually("it is gone") { try await self.upkeep.place(queue, job, old.id).state == "absent" }
      try await eventually("the queue knows") {
        queue.script.withLock { $0.profiles.last { $0.id == old.id }?.limit == 0 }
      }
      let new = try await cluster.profile("New", incoming: self.upkeep.profileDraft)
      _ = try await cluster.store.updateMailbox(id, MailboxChange(profileID: new.id), by: cluster.principal)
      _ = try await cluster.store.requestTest(of: [id], by: cluster.principal)
      let next = try await self.upkeep.claimed(queue)
      #expect(next.map(\.job) == [JobID(mailbox: id, kind: .test)] && next.map(\.profile) == [new.id])
    }
  }
}
