import PostriderCore

/// How one direction of a mailbox fared in a test, and what follows.
struct DirectionTest: Hashable, Sendable {
  let direction: Direction
  /// The direction's new state; `nil` to leave it as it is.
  let change: DirectionChange?
  /// Alerts to resolve and to raise, in this order.
  private(set) var alerts: [AlertChange]
  /// Why it failed.
  let failure: Failure?

  /// It passed: it is enabled, and what earlier tests and polls complained about is answered.
  init(passed direction: Direction) {
    self.direction = direction
    change = DirectionChange(direction, status: .success, enabled: true)
    alerts = [
      .resolve(codes: nil, direction: direction),
      .raise(
        AlertDraft(
          level: .information, code: "mailbox.connected.\(direction.rawValue)",
          text: direction == .incoming
            ? "The mailbox is connected: incoming mail is tested and enabled."
            : "The mailbox is connected: outgoing mail is tested and enabled.",
          parameters: ["direction": direction.rawValue])),
    ]
    failure = nil
  }

  /// It failed. A fault of the server or the profile, the token server's included, and what passes by itself say
  /// nothing of a mailbox that worked before: its status and flag stay, and the profile's alert, which goes away with
  /// the fault, is all there is. The login budget says nothing of any mailbox.
  ///
  /// - Parameter breaker: the server's breaker, when it is open: then the fault has its alert already.
  init(failed failure: Failure, _ direction: Direction, _ task: SessionTask, breaker: OpenBreaker? = nil) {
    self.direction = direction
    self.failure = failure
    let worked = task.assignment.enabled.contains(direction)
    if failure.code == .authBudget {
      change = nil
      alerts = []
    } else if worked, Self.isShared(failure) {
      change = nil
      let level = Self.passes(failure) ? AlertLevel.warning : .error
      alerts =
        breaker.flatMap { $0.isHalt ? nil : [.raise(AlertDraft($0, direction))] }
        ?? [.raise(AlertDraft(level: level, failure: failure, direction: direction))]
    } else if worked, Self.passes(failure) {
      // The run says it. An alert of the mailbox would stay until a poll fails as well, and then one does not.
      change = nil
      alerts = []
    } else {
      change = DirectionChange(direction, status: .failure, enabled: false, failureCode: failure.code)
      var own = AlertDraft(level: .error, failure: failure, direction: direction)
      own.onProfile = false
      alerts =
        [.resolve(codes: nil, direction: direction), .raise(own)]
        + (Self.isShared(failure) ? [.raise(AlertDraft(level: .error, failure: failure, direction: direction))] : [])
    }
  }

  /// Whether other mailboxes meet it too.
  private static func isShared(_ failure: Failure) -> Bool { failure.scope == .server || failure.scope == .profile }

  /// Whether it passes by itself.
  private static func passes(_ failure: Failure) -> Bool {
    switch failure.failureClass {
    case .contention, .throttle, .quota, .transient: true
    case .credential, .permanent, .message, .recipient, .uncertain, .attack: false
    }
  }

  /// It was not tried, because another session probes the server: the answer says why and when.
  init(refused breaker: OpenBreaker, _ direction: Direction, _ task: SessionTask) {
    let known = task.assignment.enabled.contains(direction)
    self = DirectionTest(failed: breaker.failure, direction, task)
    // The profile's alert stands since the breaker opened.
    if known && change == nil { alerts = [] }
  }
}
