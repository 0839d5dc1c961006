import FoundationEssentials
import MailProtocols
import PostriderCore

/// Tries one direction of an account from the look-up to the log-out, over the code path of real polling and sending.
///
/// Test & enable and `postrider analyze` are this; they differ in what stands around the login.
public struct MailCheck: Sendable {
  /// Runs a login when it may be tried: test & enable waits here for the server's login budget.
  public typealias LoginGate = (_ login: () async throws -> Void) async throws -> Void

  private let client: MailClient
  private let heloName: String

  /// A check over a client. `heloName` is this host's own name, or an address literal.
  public init(client: MailClient, heloName: String) {
    self.client = client
    self.heloName = heloName
  }

  /// Logs in, lists the mailbox and logs out. Throws what ``POP3Session`` throws, and what the gate does.
  ///
  /// - Parameters:
  ///   - credentials: `nil` to log out instead of logging in.
  ///   - mayConnect: asked immediately before connecting.
  ///   - gate: runs the login.
  ///   - proved: called once the server has done its part, whatever comes after.
  public func receive(
    _ endpoint: MailEndpoint, _ credentials: Credentials?, mechanism: AuthenticationMechanism, trace: SessionTrace,
    mayConnect: @escaping MailClient.Permit = { true }, gate: LoginGate = { try await $0() },
    proved: () async -> Void = {}
  ) async throws {
    let session = try await client.openPOP3(endpoint, trace: trace, mayConnect: mayConnect)
    try await session.whileOpen {
      if let credentials {
        try await gate { try await session.authenticate(credentials, mechanism: mechanism) }
        _ = try await session.list()
        await proved()
      } else {
        trace.skip(.authenticate, "no password")
      }
      try await session.quit()
    }
  }

  /// Logs in, hands a message over from an address to itself, and logs out. Throws what ``SMTPSession`` throws, a
  /// recipient's refusal included, and what the gate does.
  ///
  /// - Parameters:
  ///   - credentials: `nil` to log out instead of logging in.
  ///   - message: `nil` to send nothing.
  ///   - address: the mailbox; MAIL FROM and RCPT TO.
  ///   - mayConnect: asked immediately before connecting.
  ///   - gate: runs the login.
  ///   - proved: called once the server has done its part, whatever comes after.
  public func send(
    _ message: [UInt8]?, from address: String, _ endpoint: MailEndpoint, _ credentials: Credentials?,
    mechanism: AuthenticationMechanism, trace: SessionTrace, mayConnect: @escaping MailClient.Permit = { true },
    gate: LoginGate = { try await $0() }, proved: () async -> Void = {}
  ) async throws {
    let session = try await client.openSMTP(endpoint, heloName: heloName, trace: trace, mayConnect: mayConnect)
    try await session.whileOpen {
      if let credentials {
        try await gate { try await session.authenticate(credentials, mechanism: mechanism) }
        await proved()
        if let message {
          let delivery = try await session.send(from: address, to: [address], message: message)
          for recipient in delivery.recipients {
            if let failure = recipient.failure { throw failure }
          }
        } else {
          trace.skip(.send, "message to \(address): not asked for")
        }
      } else {
        trace.skip(.authenticate, "no password")
      }
      // Whatever was asked for is done: how the server takes its leave changes nothing, and the step says it.
      try? await session.quit()
    }
  }
}

extension SessionTrace {
  /// Notes a step that was left out on purpose.
  fileprivate func skip(_ name: StepName, _ tried: String) {
    record(
      TraceStep(
        direction: direction, name: name, tried: tried, result: .skipped, startedAt: Date(), milliseconds: 0))
  }
}
