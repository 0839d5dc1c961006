import FoundationEssentials

/// What follows from how a session went: when the job runs next, what becomes of the direction, who is told.
///
/// The failure table in one place: class decides when it is tried again, scope decides who is stopped. Only scope
/// ``FailureScope/mailbox`` ever disables a direction.
public struct Disposition: Hashable, Sendable {
  /// When the job runs next.
  public var next: NextDue
  /// Consecutive failures, this one included; 0 after success.
  public var failures: Int
  /// A change of the direction, where there is one.
  public var direction: DirectionChange?
  /// Alerts to raise or resolve.
  public var alerts: [AlertChange]

  /// Describes what follows.
  public init(next: NextDue, failures: Int, direction: DirectionChange? = nil, alerts: [AlertChange] = []) {
    self.next = next
    self.failures = failures
    self.direction = direction
    self.alerts = alerts
  }
}

/// The rules that turn a failure (or none) of regular mail processing into a ``Disposition``.
public struct DispositionRules: Sendable {
  /// After so many consecutive transient failures of mailbox scope the direction is disabled.
  public var transientLimit = 10
  /// After so many a broken protocol counts as permanent.
  public var brokenProtocolLimit = 3
  /// Which direction the job works on.
  public var direction: Direction
  /// The slots of the mailbox.
  public var slots: PollingSlots
  /// Consecutive failures before this session.
  public var failuresBefore: Int
  /// The code of the last of them.
  public var lastFailureCode: FailureCode?

  /// The rules for one session.
  public init(direction: Direction, slots: PollingSlots, failuresBefore: Int, lastFailureCode: FailureCode?) {
    self.direction = direction
    self.slots = slots
    self.failuresBefore = failuresBefore
    self.lastFailureCode = lastFailureCode
  }

  /// After a session that did its work. `moreMail` asks for another one: due now, behind what is overdue, so that a full
  /// mailbox holds back no other. `loginDelaySeconds` is what the server wants between two logins; a day of it is believed.
  public func success(at now: Date, moreMail: Bool, loginDelaySeconds: Int? = nil) -> Disposition {
    // Not at once: the job has to leave the queue before the scheduler puts it in again.
    var next =
      moreMail
      ? NextDue(at: now.addingTimeInterval(1), reason: "more-mail")
      : NextDue(at: slots.next(after: now), reason: "slot")
    let earliest = now.addingTimeInterval(Double(min(loginDelaySeconds ?? 0, 86_400)))
    if let at = next.at, at < earliest { next = NextDue(at: earliest, reason: FailureCode.pop3LoginDelay.rawValue) }
    return Disposition(
      next: next, failures: 0,
      alerts: failuresBefore > 0 || lastFailureCode != nil ? [.resolve(codes: nil, direction: direction)] : [])
  }

  /// After a session that failed as a whole.
  public func failure(
    _ failure: Failure, at now: Date, using generator: inout some RandomNumberGenerator
  ) -> Disposition {
    let failures = failuresBefore + 1
    switch failure.failureClass {
    case .contention:
      return waiting(failure, minutes: 1...5, failures: failuresBefore, at: now, &generator)
    case .throttle:
      return waiting(failure, minutes: 15...60, failures: failuresBefore, at: now, &generator)
    case .quota:
      var result = waiting(failure, minutes: 60...120, failures: failuresBefore, at: now, &generator)
      result.alerts = [alert(.warning, failure, failures: failures)]
      return result
    case .credential where failure.scope == .mailbox:
      // Mail and token servers are asked once more. That many were refused together confirms nothing.
      if failure.code.isFinalRefusal || failuresBefore > 0 && lastFailureCode?.isRefusalOfMailbox == true {
        return disabling(failure, failures: failures)
      }
      var result = waiting(failure, minutes: 5...6, failures: failures, at: now, &generator)
      result.alerts = [alert(.warning, failure, failures: failures)]
      return result
    case .permanent, .attack, .credential:
      if failure.scope == .mailbox { return disabling(failure, failures: failures) }
      // Not this mailbox's fault: it keeps its flags and its count; a probe finds out when it is over.
      var result = waiting(failure, minutes: 15...16, failures: failuresBefore, at: now, &generator)
      result.alerts = [alert(.error, failure, failures: failures)]
      return result
    case .transient, .message, .recipient, .uncertain:
      // Only a row of failures of this kind disables: what a server's outage counted before says nothing of the mailbox.
      let row = failure.scope == .mailbox && !continues(failure) ? 1 : failures
      let limit = failure.code.isBrokenProtocol ? brokenProtocolLimit : transientLimit
      if failure.scope == .mailbox && row >= limit { return disabling(failure, failures: row) }
      return retrying(failure, failures: row, at: now, &generator)
    }
  }

  /// Whether the failures before were of the same kind: scope mailbox, and a broken protocol after a broken protocol.
  private func continues(_ failure: Failure) -> Bool {
    guard failuresBefore > 0, let last = lastFailureCode else { return false }
    return last.defaultScope == failure.scope && last.isBrokenProtocol == failure.code.isBrokenProtocol
  }

  private func retrying(
    _ failure: Failure, failures: Int, at now: Date, _ generator: inout some RandomNumberGenerator
  ) -> Disposition {
    let interval = Duration.milliseconds(slots.intervalMilliseconds)
    let delay = Backoff(cap: max(.seconds(3_600), interval)).delay(afterFailures: failures, using: &generator)
    let asked = Double(min(failure.retryAfterSeconds ?? 0, 86_400))
    return Disposition(
      next: NextDue(at: now.addingTimeInterval(max(delay / .seconds(1), asked)), reason: failure.code.rawValue),
      failures: failures, alerts: [alert(.warning, failure, failures: failures)])
  }

  private func waiting(
    _ failure: Failure, minutes: ClosedRange<Double>, failures: Int, at now: Date,
    _ generator: inout some RandomNumberGenerator
  ) -> Disposition {
    // What the server asks for is believed up to a day; more would be a way to switch a mailbox off.
    let seconds =
      failure.retryAfterSeconds.map { Double(min(max($0, 1), 86_400)) }
      ?? Double.random(in: minutes, using: &generator) * 60
    return Disposition(
      next: NextDue(at: now.addingTimeInterval(seconds), reason: failure.code.rawValue), failures: failures)
  }

  private func disabling(_ failure: Failure, failures: Int) -> Disposition {
    Disposition(
      next: NextDue(at: nil, reason: failure.code.rawValue), failures: failures,
      direction: DirectionChange(direction, status: .failure, enabled: false, failureCode: failure.code),
      alerts: [alert(.error, failure, failures: failures)])
  }

  private func alert(_ level: AlertLevel, _ failure: Failure, failures: Int) -> AlertChange {
    .raise(AlertDraft(level: level, failure: failure, direction: direction, failures: failures))
  }
}

extension FailureCode {
  fileprivate var isRefusalOfMailbox: Bool { defaultClass == .credential && defaultScope == .mailbox }
}

extension AlertDraft {
  /// The alert for a failure; it stands on the profile's wall when the fault is the profile's or the server's.
  public init(level: AlertLevel, failure: Failure, direction: Direction, failures: Int = 1) {
    var parameters = ["direction": direction.rawValue, "failures": String(failures)]
    parameters["serverWords"] = failure.serverWords
    parameters["context"] = failure.context
    self.init(
      level: level, code: failure.code.rawValue, text: failure.description, remedy: failure.remedy,
      parameters: parameters, onProfile: failure.scope == .profile || failure.scope == .server)
  }
}
