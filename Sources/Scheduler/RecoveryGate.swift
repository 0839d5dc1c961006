import Synchronization

/// Lets one caller work while the others wait for it to be done.
actor RecoveryGate {
  private var waiters: [CheckedContinuation<Void, Never>] = []
  private var running = false
  private nonisolated let flag = Mutex(false)

  /// Whether somebody works.
  nonisolated var isRunning: Bool { flag.withLock { $0 } }

  /// Works, or waits for whoever does.
  func run(_ work: @Sendable () async -> Void) async {
    if running {
      await withCheckedContinuation { waiters.append($0) }
      return
    }
    running = true
    flag.withLock { $0 = true }
    await work()
    running = false
    flag.withLock { $0 = false }
    let resumed = waiters
    waiters = []
    for waiter in resumed { waiter.resume() }
  }
}
