import FoundationEssentials
import PostriderCore

extension SessionTask {
  /// What a job that is no test works on.
  private var direction: Direction { lease.job.kind == .send ? .outgoing : .incoming }

  /// What follows for a poll or a sending session: the failure table, except that a job whose server's breaker is open, or
  /// whose profile is halted, comes back with the next probe instead of after a back-off.
  func disposition(
    _ failure: Failure?, _ breaker: OpenBreaker?, moreMail: Bool = false, loginDelaySeconds: Int? = nil, at now: Date
  ) -> Disposition {
    let rules = DispositionRules(
      direction: direction, slots: PollingSlots(mailbox: settings.mailboxID, interval: settings.pollingInterval),
      failuresBefore: assignment.failures, lastFailureCode: assignment.lastFailureCode)
    guard let failure else {
      return rules.success(at: now, moreMail: moreMail, loginDelaySeconds: loginDelaySeconds)
    }
    var generator = SystemRandomNumberGenerator()
    var disposition = rules.failure(failure, at: now, using: &generator)
    guard let breaker else { return disposition }
    disposition.next = NextDue(at: breaker.next(after: now), reason: failure.code.rawValue)
    // What halts a profile stands on its wall as the failure that it is.
    guard failure.scope == .server else { return disposition }
    disposition.alerts = [.raise(AlertDraft(breaker, direction))]
    return disposition
  }

  /// The honest answer to a person's sync-now while the breaker is open and another session probes: nothing was tried,
  /// nothing is counted, and the job comes back with the next probe.
  func answered(_ breaker: OpenBreaker, from startedAt: Date) -> SessionOutcome {
    trace(.incoming).record(breaker.step(.incoming, at: startedAt))
    var run = run(from: startedAt, result: .failure, failure: breaker.failure)
    run.steps = trace(.incoming).steps
    return SessionOutcome(
      writer: writer, profileID: settings.profileID, served: assignment.requested,
      next: NextDue(at: breaker.next(after: Date()), reason: breaker.code.rawValue), failures: assignment.failures,
      failureCode: assignment.lastFailureCode, run: run)
  }

  /// The outcome of a session that was ended from outside by a failure. It tells what was really done until then.
  func failed(_ failure: Failure, _ breaker: OpenBreaker?, from startedAt: Date) -> SessionOutcome {
    let counts = progress.counts
    var run = run(from: startedAt, result: .failure, failure: failure)
    run.enter(counts)
    run.steps = Direction.allCases.flatMap { trace($0).steps }
    if lease.job.kind == .test { return failedTest(failure, counts, run) }
    var disposition = disposition(failure, breaker, at: Date())
    disposition.alerts += counts.messageFailures.map {
      .raise(AlertDraft(level: direction == .outgoing ? .error : .warning, failure: $0, direction: direction))
    }
    return SessionOutcome(
      writer: writer, profileID: settings.profileID, served: assignment.requested, next: disposition.next,
      failures: disposition.failures, failureCode: failure.code,
      directions: disposition.direction.map { [$0] } ?? [], alerts: disposition.alerts, run: run)
  }

  private func failedTest(
    _ failure: Failure, _ counts: SessionProgress.Counts, _ record: RunRecord
  ) -> SessionOutcome {
    var run = record
    if !counts.tests.isEmpty { run.result = .partial }
    let open = Direction.allCases.filter { direction in
      settings.method(direction) == .serverSideSync && !counts.tests.contains { $0.direction == direction }
    }
    let tests = counts.tests + open.map { DirectionTest(failed: failure, $0, self) }
    return SessionOutcome(
      writer: writer, profileID: settings.profileID, served: assignment.requested,
      next: NextDue(at: nil, reason: "tested"), failures: 0, failureCode: failure.code,
      directions: tests.compactMap(\.change), alerts: tests.flatMap(\.alerts), run: run)
  }
}

extension OpenBreaker {
  /// When a job of its server is worth trying again.
  func next(after now: Date) -> Date {
    now.addingTimeInterval(max(1, Double(max(nextProbeMilliseconds, waitMilliseconds)) / 1_000))
  }

  /// What a session that did not connect answers.
  var failure: Failure {
    Failure(code, scope: isHalt ? .profile : .server, serverWords: words.isEmpty ? nil : words, context: summary)
  }

  /// The step of a session that did not connect.
  func step(_ direction: Direction, at startedAt: Date) -> TraceStep {
    TraceStep(
      direction: direction, name: .connect, tried: "\(server): \(summary)", result: .failed, startedAt: startedAt,
      milliseconds: 0, serverWords: words.isEmpty ? nil : words, code: code)
  }
}
