import NIOCore

/// One deadline at a time on an event loop, cheap to move: a scheduled task that fires early looks again.
///
/// A session moves its deadline with every answer; scheduling and cancelling a task each time would cost more than
/// parsing the answer does.
final class DeadlineTimer {
  private(set) var awaited: Awaited?
  private var step = Int.min
  private var deadline = NIODeadline.distantFuture
  private var window = TimeAmount.zero
  private var octets = 0
  private var task: Scheduled<Void>?
  private var firesAt = NIODeadline.distantFuture

  /// Sets the deadline, unless the same one is set already: waiting for more of one answer does not prolong it.
  func arm(
    _ awaited: Awaited, step: Int, after amount: TimeAmount, on eventLoop: any EventLoop, _ body: @escaping () -> Void
  ) {
    if self.awaited == awaited, self.step == step { return }
    self.awaited = awaited
    self.step = step
    window = amount
    octets = 0
    deadline = .now() + amount
    schedule(on: eventLoop, body)
  }

  /// Gives the same wait another window.
  func extend(by amount: TimeAmount, on eventLoop: any EventLoop, _ body: @escaping () -> Void) {
    deadline = .now() + amount
    schedule(on: eventLoop, body)
  }

  /// The next ``arm(_:step:after:on:_:)`` counts from now, even for the same step.
  func restart() { step = Int.min }

  /// Notes octets that passed, for the rate.
  func passed(octets count: Int) { octets += count }

  /// The octets since the window began; the next window begins.
  func takeOctets() -> Int {
    defer { octets = 0 }
    return octets
  }

  /// No deadline.
  func cancel() {
    awaited = nil
    step = Int.min
    deadline = .distantFuture
    task?.cancel()
    task = nil
    firesAt = .distantFuture
  }

  private func schedule(on eventLoop: any EventLoop, _ body: @escaping () -> Void) {
    if task != nil, firesAt <= deadline { return }
    task?.cancel()
    firesAt = deadline
    task = eventLoop.assumeIsolated().scheduleTask(deadline: deadline) { [weak self] in
      guard let self else { return }
      self.task = nil
      self.firesAt = .distantFuture
      guard self.awaited != nil else { return }
      if NIODeadline.now() >= self.deadline {
        body()
      } else {
        self.schedule(on: eventLoop, body)
      }
    }
  }
}
