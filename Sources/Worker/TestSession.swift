import FoundationEssentials
import Logging
import MailMessage
import MailProtocols
import PostriderCore

/// Test & enable: each direction by itself, over the same code path as real polling and sending.
///
/// A passing direction is enabled, a failing one is not; the other direction's result does not matter.
struct TestSession {
  let context: SessionContext
  let task: SessionTask

  /// Runs the tests and decides what follows. Throws only cancellation, an unreachable queue and, for a test that nobody
  /// waits for, that a server's breaker is open.
  func outcome() async throws -> SessionOutcome {
    let startedAt = Date()
    let directions = Direction.allCases.filter { task.settings.method($0) == .serverSideSync }
    // Of a batch nothing is tried before both servers can be: a half test would have to be done again. What halts the
    // profile would be found again by each: it is the answer.
    var halted: [Direction: OpenBreaker] = [:]
    if !task.isInteractive {
      for direction in directions {
        do {
          try await context.servers.enter(task, direction)
        } catch let wait as ServerWait where wait.breaker.isHalt {
          halted[direction] = wait.breaker
        }
      }
    }
    for direction in directions {
      let test: DirectionTest
      if let halt = halted[direction] {
        test = answer(of: halt, direction)
      } else {
        test = try await self.test(direction)
      }
      task.progress.note {
        $0.tests.append(test)
        if direction == .outgoing && test.failure == nil { $0.sent += 1 }
      }
    }
    let tests = task.progress.counts.tests
    let failures = tests.compactMap(\.failure)
    var run = task.run(
      from: startedAt,
      result: failures.isEmpty ? .success : failures.count < tests.count ? .partial : .failure,
      failure: failures.first)
    run.enter(task.progress.counts)
    run.steps = directions.flatMap { task.trace($0).steps }
    return SessionOutcome(
      writer: task.writer, profileID: task.settings.profileID, served: task.assignment.requested,
      next: NextDue(at: nil, reason: "tested"), failures: 0, failureCode: failures.first?.code,
      directions: tests.compactMap(\.change), alerts: tests.flatMap(\.alerts), run: run)
  }

  private func answer(of halt: OpenBreaker, _ direction: Direction) -> DirectionTest {
    task.trace(direction).record(halt.step(direction, at: Date()))
    return DirectionTest(refused: halt, direction, task)
  }

  private func test(_ direction: Direction) async throws -> DirectionTest {
    let trace = task.trace(direction)
    let startedAt = Date()
    do {
      let credentials = try context.credentials(task.settings, direction)
      if task.isInteractive { try await context.servers.enter(task, direction) }
      switch direction {
      case .incoming: try await testIncoming(credentials, trace)
      case .outgoing: try await testOutgoing(credentials, trace)
      }
      await context.servers.leave(task, direction, nil)
      return DirectionTest(passed: direction)
    } catch let error as JobQueueError {
      throw error
    } catch let error as CancellationError {
      throw error
    } catch let wait as ServerWait {
      trace.record(wait.breaker.step(direction, at: startedAt))
      return DirectionTest(refused: wait.breaker, direction, task)
    } catch {
      try Task.checkCancellation()
      let failure = Failure(sorting: error).scoped(to: task.settings.server(direction).credentials)
      let breaker = await context.servers.leave(task, direction, failure)
      return DirectionTest(failed: failure, direction, task, breaker: breaker)
    }
  }

  private func testIncoming(_ credentials: Credentials, _ trace: SessionTrace) async throws {
    let session = try await context.openPOP3(task, trace: trace)
    do {
      try await context.servers.login(task, .incoming) {
        try await session.authenticate(credentials, mechanism: task.settings.incoming.mechanism)
      }
      _ = try await session.list()
      await context.servers.proved(task, .incoming)
      try await session.quit()
    } catch {
      session.abort()
      throw error
    }
  }

  /// Sends a real message from the mailbox to itself.
  private func testOutgoing(_ credentials: Credentials, _ trace: SessionTrace) async throws {
    let settings = task.settings
    let session = try await context.openSMTP(task, trace: trace)
    do {
      try await context.servers.login(task, .outgoing) {
        try await session.authenticate(credentials, mechanism: settings.outgoing.mechanism)
      }
      await context.servers.proved(task, .outgoing)
      let delivery = try await session.send(
        from: settings.address, to: [settings.address], message: try testMessage(to: settings.address))
      for recipient in delivery.recipients {
        if let failure = recipient.failure { throw failure }
      }
      // The message is handed over: how the server takes its leave changes nothing, and the step says it.
      try? await session.quit()
    } catch {
      session.abort()
      throw error
    }
  }

  private func testMessage(to address: String) throws -> [UInt8] {
    let domain = address.split(separator: "@").last.map(String.init) ?? "localhost"
    return try MessageBuilder(
      from: EmailAddress(name: "Postrider", address: address), to: [EmailAddress(address: address)],
      subject: "Your mailbox is now connected",
      text: """
        This message was sent by Postrider from the mailbox \(address) to itself.

        It shows that outgoing mail works. You do not need to do anything.

        """, html: nil, messageID: "postrider-test.\(task.lease.fence).\(task.lease.job)@\(domain)", date: Date(),
      headers: [("Auto-Submitted", "auto-generated"), ("X-Postrider-Test", "\(task.lease.fence)")]
    ).build()
  }
}
