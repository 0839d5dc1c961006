import Foundation
import MailMessage
import MailProtocols
import PostriderCore
import Worker

/// An account to be tried, and how.
struct Analysis: Sendable {
  /// The mailbox's address.
  var address: String
  /// Its POP3 server; `nil` to leave that direction out.
  var incoming: ServerSettings?
  /// Its SMTP server, likewise.
  var outgoing: ServerSettings?
  /// `nil` to stop before the login.
  var credentials: Credentials?
  /// Whether a message is really sent.
  var sends = false
  /// Certificates (PEM) trusted instead of the system's.
  var caCertificatesPEM: String?
  /// For a connection and for each answer.
  var timeout: Duration = .seconds(30)

  init(address: String, incoming: ServerSettings?, outgoing: ServerSettings?) {
    self.address = address
    self.incoming = incoming
    self.outgoing = outgoing
  }

  /// What happens, when it happens.
  enum Event: Sendable {
    case began(AnalysisReport.Part)
    case step(TraceStep)
    case ended(AnalysisReport.Part)
  }

  /// Tries one direction after the other, each whatever became of the one before. Throws only cancellation.
  func run(
    _ check: MailCheck, saying say: @escaping @Sendable (Event) -> Void = { _ in }
  ) async throws -> AnalysisReport {
    var report = AnalysisReport(address: address)
    if let incoming { report.incoming = try await part(.incoming, incoming, check, say) }
    if let outgoing { report.outgoing = try await part(.outgoing, outgoing, check, say) }
    return report
  }

  private func part(
    _ direction: Direction, _ server: ServerSettings, _ check: MailCheck, _ say: @escaping @Sendable (Event) -> Void
  ) async throws -> AnalysisReport.Part {
    var part = AnalysisReport.Part(direction, server, userName: credentials?.userName)
    say(.began(part))
    let trace = SessionTrace(direction: direction) { say(.step($0)) }
    do {
      try await attempt(direction, server, check, trace)
    } catch let error as CancellationError {
      throw error
    } catch {
      part.failure = AnalysisReport.Trouble(
        error as? Failure ?? Failure(.internalError, context: String(describing: type(of: error))))
    }
    part.steps = trace.steps
    part.handshake = trace.tls
    say(.ended(part))
    return part
  }

  private func attempt(
    _ direction: Direction, _ server: ServerSettings, _ check: MailCheck, _ trace: SessionTrace
  ) async throws {
    var endpoint = MailEndpoint(server, direction, caCertificatesPEM: caCertificatesPEM, timeout: timeout)
    // A person waits; nothing is sent again, so an answer that comes too late doubles no message.
    endpoint.finalAnswerTimeout = max(timeout, .seconds(60))
    switch direction {
    case .incoming:
      try await check.receive(endpoint, credentials, mechanism: server.mechanism, trace: trace)
    case .outgoing:
      guard let sender = InternationalAddress.wireForm(address) else {
        throw Failure(.smtpRejected, context: "the domain of \(address) cannot be written in A-labels")
      }
      let unique = String(UInt64.random(in: .min ... .max), radix: 36)
      let id = TestMessage.messageID("postrider-analyze.\(unique)", of: sender)
      let message = sends ? try TestMessage.compose(to: address, messageID: id, mark: "analyze") : nil
      try await check.send(
        message, from: sender, endpoint, credentials, mechanism: server.mechanism, trace: trace)
    }
  }
}

/// What came of an analysis.
struct AnalysisReport: Hashable, Sendable, Codable {
  /// One direction.
  struct Part: Hashable, Sendable, Codable {
    /// Which one.
    var direction: Direction
    /// `pop3` or `smtp`.
    var `protocol`: String
    var host: String
    var port: Int
    var tls: TLSMode
    var mechanism: AuthenticationMechanism
    /// The login name; `nil` when nobody logs in.
    var userName: String?
    /// Why it does not work; `nil` when all that was tried works.
    var failure: Trouble?
    /// What the TLS handshake showed; `nil` when there was none.
    var handshake: TLSFacts?
    /// In their order.
    var steps: [TraceStep] = []

    init(_ direction: Direction, _ server: ServerSettings, userName: String?) {
      self.direction = direction
      self.protocol = direction == .incoming ? "pop3" : "smtp"
      host = server.host
      port = server.port
      tls = server.tls
      mechanism = server.mechanism
      self.userName = userName
    }
  }

  /// A failure with what to do about it.
  struct Trouble: Hashable, Sendable, Codable {
    var code: FailureCode
    var summary: String
    var remedy: String
    var failureClass: FailureClass
    var scope: FailureScope
    var serverWords: String?
    var context: String?

    init(_ failure: Failure) {
      code = failure.code
      summary = failure.code.summary
      remedy = failure.remedy
      failureClass = failure.failureClass
      scope = failure.scope
      serverWords = failure.serverWords
      context = failure.context
    }
  }

  /// The mailbox's address.
  var address: String
  /// Whether everything that was tried works.
  var passed: Bool { [incoming, outgoing].allSatisfy { $0?.failure == nil } }
  var incoming: Part?
  var outgoing: Part?

  init(address: String) { self.address = address }

  private enum Keys: String, CodingKey {
    case address, passed, incoming, outgoing
  }

  init(from decoder: any Decoder) throws {
    let values = try decoder.container(keyedBy: Keys.self)
    address = try values.decode(String.self, forKey: .address)
    incoming = try values.decodeIfPresent(Part.self, forKey: .incoming)
    outgoing = try values.decodeIfPresent(Part.self, forKey: .outgoing)
  }

  func encode(to encoder: any Encoder) throws {
    var values = encoder.container(keyedBy: Keys.self)
    try values.encode(address, forKey: .address)
    try values.encode(passed, forKey: .passed)
    try values.encodeIfPresent(incoming, forKey: .incoming)
    try values.encodeIfPresent(outgoing, forKey: .outgoing)
  }
}
