import NIOCore
import PostriderCore
import Synchronization

/// An SMTP submission session (RFC 5321, RFC 6409). One call at a time; it ends with ``quit()`` or ``abort()``.
///
/// Calls throw ``Failure``, or `CancellationError` when the task was cancelled; cancelling closes the socket. After a
/// refusal the session goes on; after 421 or any other failure it is closed and every later call throws again.
public final class SMTPSession: Sendable {
  private let connection: DialogueConnection<SMTPDialogue>
  private let endpoint: MailEndpoint
  private let trace: SessionTrace
  private let known = Mutex(SMTPExtensions())

  init(connection: DialogueConnection<SMTPDialogue>, endpoint: MailEndpoint, trace: SessionTrace) {
    self.connection = connection
    self.endpoint = endpoint
    self.trace = trace
  }

  /// What the server can do, as it said last. Nothing that was said before TLS counts after it.
  public var extensions: SMTPExtensions { known.withLock { $0 } }

  /// Runs what uses this session. The socket is closed when that throws, and at once when the task is cancelled,
  /// whatever it waits for then, be it the mail server or a database.
  public func whileOpen<Result: Sendable>(_ body: () async throws -> Result) async throws -> Result {
    try await connection.whileOpen(body)
  }

  /// Greeting, EHLO, STARTTLS, EHLO.
  func enter(heloName: String) async throws {
    try await step(.greeting, "greeting of \(endpoint.host)", .greeting)
    try await hello(heloName)
    guard endpoint.tls == .starttls else { return }
    try await trace.measure(.tls, "STARTTLS with \(endpoint.host)") {
      if !extensions.startTLS { throw Failure(.tlsStartTLSMissing, context: "the server does not offer STARTTLS") }
      return ((), try await connection.secure(.startTLS, trace))
    }
    try await hello(heloName)
  }

  /// Logs in, as ``POP3Session/authenticate(_:mechanism:)`` does.
  public func authenticate(_ credentials: Credentials, mechanism: AuthenticationMechanism) async throws {
    let chosen = choose(credentials, mechanism)
    try await trace.measure(.authenticate, credentials.attempt(by: try? chosen.get().name)) {
      let chosen = try chosen.get()
      guard case .done(let words) = try await connection.perform(.login(chosen, credentials)) else {
        return ((), nil)
      }
      return ((), words)
    }
  }

  private func choose(
    _ credentials: Credentials, _ mechanism: AuthenticationMechanism
  ) -> Result<any SASLMechanism, Failure> {
    do throws(Failure) {
      try CommandValue.check(credentials)
      return .success(try SMTPLoginChoice.choose(credentials, mechanism, extensions, LoginTarget(endpoint)))
    } catch {
      return .failure(error)
    }
  }

  /// Sends one message held whole; see ``send(from:to:_:)``.
  public func send(from: String, to: [String], message: [UInt8]) async throws -> SMTPDelivery {
    try await send(from: from, to: to, SMTPMessage(message))
  }

  /// Sends one message; commands are pipelined where the server allows it.
  ///
  /// `from` may be empty (the null path). Line ends of `message` become CRLF, dots are stuffed. Returns when the server
  /// took the message, or when it refused every recipient. Throws when it refused the message as a whole;
  /// `smtp.lost` when the connection broke before the final dot, `smtp.uncertain` when it broke, fell silent or was
  /// interrupted after it, in which case the message must not be sent again blindly (this also replaces
  /// `CancellationError`). What a message's stream throws ends the session before the final dot, and is thrown.
  public func send(from: String, to: [String], _ message: SMTPMessage) async throws -> SMTPDelivery {
    try await trace.measure(.send, "message of \(message.sizeOctets) octets to \(to.count) recipients") {
      let operation = SMTPOperation.send(from: from, to: to, message: message)
      let outcome: SMTPOutcome
      switch message.source {
      case .whole: outcome = try await connection.perform(operation)
      case .stream(let octets):
        var reader = BodyReader(octets, sizeOctets: message.sizeOctets)
        outcome = try await connection.perform(operation) { try await reader.next() }
      }
      guard case .delivery(let delivery) = outcome else {
        throw Failure(.internalError, context: "a message without an outcome")
      }
      return (delivery, delivery.reply?.words ?? delivery.recipients.compactMap(\.failure?.serverWords).first)
    }
  }

  /// Ends the session. The socket is closed in any case.
  public func quit() async throws {
    defer { connection.interrupt(.finished) }
    try await step(.quit, "QUIT", .quit)
  }

  /// Closes the socket at once, from any thread. A pending call throws `run.aborted`, or `smtp.uncertain` when it waits
  /// for the answer to a message.
  public func abort() { connection.interrupt(.aborted) }

  private func hello(_ name: String) async throws {
    try await trace.measure(.capabilities, "EHLO \(name)") {
      guard case .extensions(let extensions, let words) = try await connection.perform(.hello(name)) else {
        return ((), nil)
      }
      known.withLock { $0 = extensions }
      return ((), words)
    }
  }

  private func step(_ name: StepName, _ tried: String, _ operation: SMTPOperation) async throws {
    try await trace.measure(name, tried) {
      guard case .done(let words) = try await connection.perform(operation) else { return ((), nil) }
      return ((), words)
    }
  }
}

/// Reads a message's stream, and makes sure that it is whole before anybody hears of its end.
private struct BodyReader {
  private var iterator: AsyncThrowingStream<[UInt8], any Error>.Iterator
  private var left: Int64

  init(_ octets: AsyncThrowingStream<[UInt8], any Error>, sizeOctets: Int64) {
    iterator = octets.makeAsyncIterator()
    left = sizeOctets
  }

  mutating func next() async throws -> [UInt8]? {
    guard let octets = try await iterator.next() else {
      // A stream of a cancelled task ends early, as if that were all.
      try Task.checkCancellation()
      if left != 0 { throw Failure(.internalError, context: "\(left) octets of the stored message are missing") }
      return nil
    }
    left -= Int64(octets.count)
    if octets.contains(0) { throw Failure(.smtpContent, context: "the message holds NUL") }
    return octets
  }
}
