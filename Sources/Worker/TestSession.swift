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
    let roundTrip = try await roundTrip()
    let tests = task.progress.counts.tests
    let failures = tests.compactMap(\.failure)
    var run = task.run(
      from: startedAt,
      result: failures.isEmpty ? .success : failures.count < tests.count ? .partial : .failure,
      failure: failures.first)
    run.enter(task.progress.counts)
    run.steps = directions.flatMap { task.trace($0).steps } + (roundTrip.map { [$0.step] } ?? [])
    return SessionOutcome(
      writer: task.writer, profileID: task.settings.profileID, served: task.assignment.requested,
      next: NextDue(at: nil, reason: "tested"), failures: 0, failureCode: failures.first?.code,
      directions: tests.compactMap(\.change), alerts: tests.flatMap(\.alerts) + (roundTrip?.alert.map { [$0] } ?? []),
      run: run)
  }

  /// Only where both directions work there is something to come back.
  private func roundTrip() async throws -> (step: TraceStep, alert: AlertChange?)? {
    let counts = task.progress.counts
    guard context.configuration.roundTripWait > .zero, counts.tests.count == Direction.allCases.count,
      counts.tests.allSatisfy({ $0.failure == nil }),
      let address = InternationalAddress.wireForm(task.settings.address)
    else { return nil }
    let sentAt = task.trace(.outgoing).steps.last { $0.name == .send }?.startedAt ?? Date()
    return try await RoundTrip(context: context, task: task, messageID: messageID(of: address), sentAt: sentAt).step()
  }

  /// The same on every attempt of one session.
  private func messageID(of address: String) -> String {
    TestMessage.messageID("postrider-test.\(task.lease.fence).\(task.lease.job)", of: address)
  }

  private func answer(of halt: OpenBreaker, _ direction: Direction) -> DirectionTest {
    task.trace(direction).record(halt.step(direction, at: Date()))
    return DirectionTest(refused: halt, direction, task)
  }

  private func test(_ direction: Direction) async throws -> DirectionTest {
    let trace = task.trace(direction)
    let startedAt = Date()
    do {
      if task.settings.server(direction).credentials != .oauth { _ = try context.credentials(task.settings, direction) }
      if task.isInteractive { try await context.servers.enter(task, direction) }
      try await context.signingIn(task, direction) { try await check(direction, $0, trace) }
      await context.servers.leave(task, direction, nil)
    } catch let error as JobQueueError {
      throw error
    } catch let error as CancellationError {
      throw error
    } catch let error as FencedError {
      throw error
    } catch StoreError.unavailable(let reason) {
      // A fault of ours, which says nothing of the mailbox: somebody tests it again.
      throw StoreError.unavailable(reason: reason)
    } catch let wait as ServerWait {
      trace.record(wait.breaker.step(direction, at: startedAt))
      return DirectionTest(refused: wait.breaker, direction, task)
    } catch {
      try Task.checkCancellation()
      let failure = Failure(sorting: error).scoped(to: task.settings.server(direction).credentials)
      let breaker = await context.servers.leave(task, direction, failure)
      return DirectionTest(failed: failure, direction, task, breaker: breaker)
    }
    if direction == .incoming, let refusal = try await claim(trace) {
      return DirectionTest(failed: refusal, direction, task)
    }
    return DirectionTest(passed: direction)
  }

  /// Claims the address, which one organization of the installation receives. Last, so that only who can log in is told
  /// that another one does, or takes it from there.
  private func claim(_ trace: SessionTrace) async throws -> Failure? {
    let startedAt = Date()
    let claim = try await context.store.claimAddress(writer: task.writer)
    if claim == .held { return nil }
    let failure = claim == .elsewhere ? Failure(.ownershipOtherOrganization) : nil
    trace.record(
      TraceStep(
        direction: .incoming, name: .store,
        tried: failure == nil
          ? "take \(task.settings.address) over from another organization"
          : "claim \(task.settings.address) for this organization",
        result: failure == nil ? .ok : .failed, startedAt: startedAt,
        milliseconds: Date().timeIntervalSince(startedAt) * 1_000, code: failure?.code))
    return failure
  }

  private func check(_ direction: Direction, _ credentials: Credentials, _ trace: SessionTrace) async throws {
    let endpoint = context.endpoint(task.settings, direction)
    let mechanism = task.settings.server(direction).mechanism
    let mayConnect: MailClient.Permit = { [context, task] in context.keeper.mayConnect(task.lease) }
    func gate(_ login: () async throws -> Void) async throws { try await context.servers.login(task, direction, login) }
    func proved() async { await context.servers.proved(task, direction) }
    switch direction {
    case .incoming:
      try await context.check.receive(
        endpoint, credentials, mechanism: mechanism, trace: trace, mayConnect: mayConnect, gate: gate, proved: proved)
    case .outgoing:
      guard let address = InternationalAddress.wireForm(task.settings.address) else {
        throw Failure(.smtpRejected, context: "the domain of \(task.settings.address) cannot be written in A-labels")
      }
      let id = messageID(of: address)
      let message = try TestMessage.compose(to: task.settings.address, messageID: id, mark: "\(task.lease.fence)")
      try await context.check.send(
        message, from: address, endpoint, credentials, mechanism: mechanism, trace: trace, mayConnect: mayConnect,
        gate: { login in
          try await gate(login)
          // Known before it leaves: it may be back before the server has answered.
          try await context.store.noteOwnMessage(id, writer: task.writer)
        }, proved: proved)
    }
  }
}
