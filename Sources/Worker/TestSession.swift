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

  private struct DirectionTest {
    var change: DirectionChange
    var alert: AlertChange
    var failure: Failure?
    var steps: [TraceStep]
  }

  /// Runs the tests and decides what follows. Throws only cancellation.
  func outcome() async throws -> SessionOutcome {
    let startedAt = Date()
    var tests: [DirectionTest] = []
    for direction in Direction.allCases where task.settings.method(direction) == .serverSideSync {
      tests.append(try await test(direction))
    }
    let failures = tests.compactMap(\.failure)
    var run = task.run(
      from: startedAt,
      result: failures.isEmpty ? .success : failures.count < tests.count ? .partial : .failure,
      failure: failures.first)
    run.steps = tests.flatMap(\.steps)
    run.messagesSent = tests.count { $0.change.direction == .outgoing && $0.failure == nil }
    return SessionOutcome(
      writer: task.writer, profileID: task.settings.profileID, served: task.assignment.requested,
      next: NextDue(at: nil, reason: "tested"), failures: 0, failureCode: failures.first?.code,
      directions: tests.map(\.change), alerts: alerts(of: tests), run: run)
  }

  private func alerts(of tests: [DirectionTest]) -> [AlertChange] {
    // What earlier tests and polls complained about is answered by this test, one way or the other.
    tests.map { .resolve(codes: nil, direction: $0.change.direction) } + tests.map(\.alert)
      + tests.compactMap { test in
        guard let failure = test.failure, failure.scope == .profile || failure.scope == .server else { return nil }
        return .raise(AlertDraft(level: .error, failure: failure, direction: test.change.direction))
      }
  }

  private func test(_ direction: Direction) async throws -> DirectionTest {
    let trace = task.trace(direction)
    do {
      switch direction {
      case .incoming: try await testIncoming(trace)
      case .outgoing: try await testOutgoing(trace)
      }
      return DirectionTest(
        change: DirectionChange(direction, status: .success, enabled: true),
        alert: .raise(
          AlertDraft(
            level: .information, code: "mailbox.connected.\(direction.rawValue)",
            text: direction == .incoming
              ? "The mailbox is connected: incoming mail is tested and enabled."
              : "The mailbox is connected: outgoing mail is tested and enabled.",
            parameters: ["direction": direction.rawValue])),
        failure: nil, steps: trace.steps)
    } catch {
      try Task.checkCancellation()
      let failure = Failure(sorting: error).scoped(to: task.settings.server(direction).credentials)
      var draft = AlertDraft(level: .error, failure: failure, direction: direction)
      draft.onProfile = false
      return DirectionTest(
        change: DirectionChange(direction, status: .failure, enabled: false, failureCode: failure.code),
        alert: .raise(draft), failure: failure, steps: trace.steps)
    }
  }

  private func testIncoming(_ trace: SessionTrace) async throws {
    let credentials = try context.credentials(task.settings, .incoming)
    let session = try await context.client.openPOP3(context.endpoint(task.settings, .incoming), trace: trace)
    do {
      try await session.authenticate(credentials, mechanism: task.settings.incoming.mechanism)
      _ = try await session.list()
      try await session.quit()
    } catch {
      session.abort()
      throw error
    }
  }

  /// Sends a real message from the mailbox to itself.
  private func testOutgoing(_ trace: SessionTrace) async throws {
    let settings = task.settings
    let credentials = try context.credentials(settings, .outgoing)
    let session = try await context.client.openSMTP(
      context.endpoint(settings, .outgoing), heloName: context.configuration.heloName, trace: trace)
    do {
      try await session.authenticate(credentials, mechanism: settings.outgoing.mechanism)
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
