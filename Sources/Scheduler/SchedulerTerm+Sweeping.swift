import PostriderCore

/// Carrying out what administration began and is too much for one transaction.
extension SchedulerTerm {
  /// Mailboxes looked at in one step.
  private static let batch = 500

  /// Withdraws the jobs of deleted mailboxes and sweeps, when announced and every now and then, without a pause while there
  /// is more to do. What a term leaves the next one finds.
  func sweepForEver() async {
    while !Task.isCancelled {
      var waiting = 0
      await attempt("deleted mailboxes") { waiting = try await self.withdrawDeleted() }
      var isMore = false
      await attempt("sweeping") { isMore = try await self.store.sweep() }
      if isMore { continue }
      // Leases end within seconds: look again soon.
      await sweepWish.wait(timeout: waiting > 0 ? min(configuration.upkeep, .seconds(1)) : configuration.upkeep)
    }
  }

  /// Returns how many deleted mailboxes still have a session: it ends by itself, and writes nothing any more.
  private func withdrawDeleted() async throws -> Int {
    let deleted = try await store.deletedMailboxes(limit: Self.batch)
    if deleted.isEmpty { return 0 }
    // A page read before the deletion would bring a job back.
    await gate.settle()
    let leased = Set(try await queue.withdraw(deleted.flatMap(\.jobs)))
    let waiting = Set(deleted.filter { $0.jobs.contains { leased.contains($0.id) } }.map(\.mailbox))
    try await store.finishWithdrawal(of: Set(deleted.map(\.mailbox)).subtracting(waiting).sorted())
    return waiting.count
  }
}
