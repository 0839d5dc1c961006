import FoundationEssentials
import PostriderCore

extension SendSession {
  /// What follows from how the session went.
  func outcome(
    _ failure: Failure?, _ breaker: OpenBreaker?, _ wait: SendWait?, from startedAt: Date, connected: Bool,
    isOneTooMany: Bool
  ) -> SessionOutcome {
    let counts = task.progress.counts
    var disposition: Disposition
    // A connection too many, perhaps: lane 0 goes on, and says what is wrong with the server.
    let tellsNothing =
      isOneTooMany
      || lane > 0 && failure.map { [.transient, .contention, .throttle].contains($0.failureClass) } ?? false
    if tellsNothing {
      disposition = Disposition(
        next: NextDue(at: wait?.until, reason: wait?.reason ?? "next-try"), failures: task.assignment.failures)
    } else if let failure {
      disposition = task.disposition(failure, breaker, at: Date())
      // The message's own alert says it, as an error.
      if failure.failureClass == .uncertain { disposition.alerts = [] }
    } else {
      disposition = Disposition(
        next: NextDue(at: wait?.until, reason: wait?.reason ?? "next-try"),
        // Without a connection nothing was learned.
        failures: connected ? 0 : task.assignment.failures,
        // Another lane may have raised one just now.
        alerts: lane == 0 && connected && (task.assignment.failures > 0 || task.assignment.lastFailureCode != nil)
          ? [.resolve(codes: Self.codesOfDirection, direction: .outgoing)] : [])
    }
    disposition.alerts += counts.messageFailures.map {
      .raise(AlertDraft(level: .error, failure: $0, direction: .outgoing))
    }
    var run = task.run(
      from: startedAt, result: failure != nil ? .failure : counts.failed > 0 ? .partial : .success,
      failure: failure ?? counts.messageFailures.first ?? counts.leftUncertain)
    run.enter(counts)
    if run.result != .success || task.settings.verbose { run.steps = task.trace(.outgoing).steps }
    var outcome = SessionOutcome(
      writer: task.writer, profileID: task.settings.profileID, served: task.assignment.requested,
      next: disposition.next, failures: disposition.failures,
      failureCode: connected && !tellsNothing ? failure?.code : task.assignment.lastFailureCode,
      directions: disposition.direction.map { [$0] } ?? [], alerts: disposition.alerts, run: run)
    outcome.keepsFailure = lane > 0 && (failure == nil || tellsNothing)
    return outcome
  }

  /// The alerts that a working session answers. What became of a message is for a person to settle.
  private static let codesOfDirection = FailureCode.allCases.filter {
    $0.defaultScope != .message || $0.defaultClass == .transient
  }.map(\.rawValue)
}
