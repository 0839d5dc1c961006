import FoundationEssentials
import PostriderCore

/// How fast, and over how many connections.
extension SendSession {
  /// A session waits so long for a quota; what has to wait longer is for a later one.
  static let longestWaitSeconds: TimeInterval = 5
  /// So long a server that refused a connection as one too many is not asked for as many again.
  static let concurrencyMemorySeconds: TimeInterval = 3_600
  /// When a session comes back that was one too many beside others of ours.
  static let retryBesideLanesSeconds: TimeInterval = 30

  /// How many lanes there should be for so many due messages.
  func lanes(_ outlook: OutgoingOutlook) -> Int {
    // One connection hands over a message a second at least: what a quota lets pass in a minute needs no more of them.
    let paced = task.settings.pace.mailbox.messagesPerMinute.map { ($0 + 59) / 60 }
    return min(
      task.settings.sendLanes, outlook.connections ?? JobID.maximumLanes, paced ?? JobID.maximumLanes,
      (outlook.due + Self.messagesPerSession - 1) / Self.messagesPerSession)
  }

  /// The next message. Lane 0 waits for a quota with its connection open while that is worth it, and looks again every
  /// second for a message that is more important and need not wait.
  func next(before end: ContinuousClock.Instant) async throws -> MessageClaim {
    while true {
      let claim = try await context.store.claimMessage(pace: task.settings.pace, writer: task.writer)
      guard case .wait(let wait) = claim, lane == 0, ContinuousClock.now < end else { return claim }
      let left = wait.until.timeIntervalSinceNow
      if left > Self.longestWaitSeconds { return claim }
      try await Task.sleep(for: .seconds(min(max(left, 0.01), 1)))
    }
  }

  /// Keeps in mind what the server said of our pace. Whatever is submitted meanwhile does not ask it again.
  ///
  /// - Parameter letIn: how many sessions beside this one it has let in; `nil` for none.
  func adapt(to failure: Failure, letIn: Int?, until next: Date?) async throws {
    // Our own budget of failed logins says nothing of what the server lets in.
    guard failure.scope == .mailbox, failure.code != .authBudget else { return }
    let memory = Date().addingTimeInterval(Self.concurrencyMemorySeconds)
    if let letIn, failure.failureClass == .throttle {
      return try await context.store.adapt(.connections(letIn, until: memory), writer: task.writer)
    }
    if failure.code == .smtpConcurrency {
      try await context.store.adapt(.connections(1, until: memory), writer: task.writer)
    }
    guard let next, [.quota, .throttle].contains(failure.failureClass) else { return }
    try await context.store.adapt(.wait(SendWait(until: next, reason: failure.code.rawValue)), writer: task.writer)
  }
}
