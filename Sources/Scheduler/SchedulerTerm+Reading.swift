import PostriderCore

extension SchedulerTerm {
  /// A page of due rows on its way into the queue.
  private struct ReadPage {
    var page: DuePage
    var passage: PassageGate.Passage
  }

  private func read(
    after position: DuePage.Position, limit: Int, only selection: DueSelection
  ) async throws -> ReadPage {
    let passage = gate.begin()
    return ReadPage(page: try await store.due(after: position, limit: limit, only: selection), passage: passage)
  }

  // MARK: What has just become due

  /// How far before its start a leader begins to read: several times what a change of leaders takes.
  private static let overlapMicroseconds: Int64 = 60_000_000

  /// Enqueues rows as they become due, behind a watermark on the database's clock.
  func followWatermark() async {
    var position: DuePage.Position?
    while !Task.isCancelled {
      await untilDone("watermark") {
        self.pulse.beat()
        let from: DuePage.Position
        if let position {
          from = position
        } else {
          // What became due while nobody led is read at once; everything older is the first rescan's.
          let now = try await self.store.due(after: .init(dueMicroseconds: .max), limit: 1).nowMicroseconds
          from = .init(dueMicroseconds: now - Self.overlapMicroseconds)
        }
        let read = try await self.read(after: from, limit: self.configuration.pageSize, only: .all)
        defer { read.passage.end() }
        let page = read.page
        self.lag.note(
          .watermark, dueMicroseconds: page.jobs.first.map { $0.dueMilliseconds * 1_000 },
          nowMicroseconds: page.nowMicroseconds)
        try await self.enqueue(page.jobs)
        position = page.next ?? .init(dueMicroseconds: max(page.nowMicroseconds, from.dueMicroseconds))
        self.lag.note(
          .watermark, dueMicroseconds: page.next?.dueMicroseconds, nowMicroseconds: page.nowMicroseconds)
        read.passage.end()
        if page.next == nil { try await self.sleepUntilDue(after: page.nowMicroseconds) }
      }
    }
  }

  private func sleepUntilDue(after nowMicroseconds: Int64) async throws {
    let next = try await store.nextDueMicroseconds() ?? .max
    let wait = Duration.microseconds(min(max(next &- nowMicroseconds, 0), 3_600_000_000))
    try await Task.sleep(for: min(max(wait, configuration.tick.lowerBound), configuration.tick.upperBound))
  }

  // MARK: The safety net

  /// Reads everything overdue every now and then, at a rate that crowds out nothing, and when asked to. Profiles too: the
  /// queue gives no lease for one that it does not know, and whatever announcement was not heard, of a row or of a
  /// profile, ends here.
  func rescanForEver() async {
    while !Task.isCancelled {
      await untilDone("rescan") {
        try await self.sendProfiles()
        if self.state.withLock(\.refill) { try await self.refill() } else { try await self.rescan() }
      }
      await rescanWish.wait(timeout: configuration.rescan)
    }
  }

  /// Fills an empty queue, as fast as it goes: first what a person waits for and what is to be sent. Claims begin only a
  /// lease after the epoch was opened, so most of it is done before anybody asks.
  private func refill() async throws {
    // Whatever empties the queue again meanwhile sets it again.
    state.withLock { $0.refill = false }
    do {
      for selection in [DueSelection.urgent, .running] { try await fill(selection) }
    } catch {
      state.withLock { $0.refill = true }
      throw error
    }
    if state.withLock(\.refill) { rescanWish.signal() }
  }

  /// Reads a page while the one before is enqueued.
  private func fill(_ selection: DueSelection) async throws {
    let size = configuration.refillPageSize
    var current = try await read(after: .init(dueMicroseconds: 0), limit: size, only: selection)
    while true {
      let page = current.page
      noteRescan(page)
      async let following = page.next.asyncMap { try await self.read(after: $0, limit: size, only: selection) }
      try await enqueueAtOnce(page.jobs)
      current.passage.end()
      guard let next = try await following else { break }
      current = next
    }
    lag.note(.rescan, dueMicroseconds: nil, nowMicroseconds: 0)
  }

  private func rescan() async throws {
    var position: DuePage.Position? = .init(dueMicroseconds: 0)
    let clock = ContinuousClock()
    while let from = position {
      let began = clock.now
      let read = try await read(after: from, limit: configuration.pageSize, only: .running)
      defer { read.passage.end() }
      try await enqueue(read.page.jobs)
      read.passage.end()
      position = read.page.next
      if position == nil { break }
      // A new epoch does not wait for the rest of a slow walk.
      if state.withLock(\.refill) {
        rescanWish.signal()
        break
      }
      let share = Duration.seconds(Double(read.page.jobs.count) / Double(configuration.rescanRowsPerSecond))
      try await Task.sleep(until: began + share, clock: clock)
    }
  }

  private func noteRescan(_ page: DuePage) {
    lag.note(
      .rescan, dueMicroseconds: page.jobs.first.map { $0.dueMilliseconds * 1_000 },
      nowMicroseconds: page.nowMicroseconds)
  }

  // MARK: Into the queue

  func enqueue(_ jobs: [Job]) async throws {
    guard !jobs.isEmpty else { return }
    enqueued.increment(by: Int64(try await queue.enqueue(jobs)))
  }

  /// Enqueues a big page by several calls at once, each with whole profiles, which costs the queue least.
  private func enqueueAtOnce(_ jobs: [Job]) async throws {
    let calls = max(1, configuration.refillCalls)
    guard jobs.count >= calls * 100 else { return try await enqueue(jobs) }
    let sorted = jobs.sorted { $0.profile < $1.profile }
    let share = (sorted.count + calls - 1) / calls
    try await withThrowingTaskGroup(of: Void.self) { group in
      for start in stride(from: 0, to: sorted.count, by: share) {
        let part = Array(sorted[start..<min(start + share, sorted.count)])
        group.addTask { try await self.enqueue(part) }
      }
      try await group.waitForAll()
    }
  }

  func sendProfiles() async throws {
    let profiles = try await store.queueProfiles()
    var rest = profiles[...]
    while !rest.isEmpty {
      try await queue.update(profiles: Array(rest.prefix(500)))
      rest = rest.dropFirst(500)
    }
  }
}

extension Optional where Wrapped: Sendable {
  fileprivate func asyncMap<T: Sendable>(_ transform: (Wrapped) async throws -> T) async rethrows -> T? {
    guard let value = self else { return nil }
    return try await transform(value)
  }
}
