import PostriderCore

/// One login by SASL on its way, the same over POP3 (RFC 5034) and SMTP (RFC 4954).
///
/// Knows when the first message goes with the command, what cancels, and whether a success may be believed; the dialogues
/// only know how a challenge, a success and a refusal look.
struct SASLExchange: Sendable {
  /// Challenges in one exchange; the longest known one has four.
  static let maximumChallenges = 16
  /// A line with an answer, CRLF included (RFC 4954 section 4).
  static let maximumLineOctets = 12_288

  /// What to do next.
  enum Move: Sendable {
    /// Send a line; it and the secrets must be shown to nobody.
    case send(line: String, secrets: [String])
    /// Compute this, then call ``computed(_:)``.
    case compute(SASLComputation)
  }

  private var mechanism: any SASLMechanism
  private let commandLimit: Int
  private var challenges = 0
  /// Whether the command is still to be sent, and waits for the first message.
  private var isOpening = false
  /// A first message that the server has not asked for yet.
  private var unasked: [UInt8]?
  /// A first message that went with the command. A server that did not read it there asks for it.
  private var given: [UInt8]?
  private var cancellation: String??

  /// The mechanism's name.
  var name: String { mechanism.name }

  /// An exchange whose command line may have so many octets, CRLF included.
  init(_ mechanism: any SASLMechanism, commandLimit: Int) {
    self.mechanism = mechanism
    self.commandLimit = commandLimit
  }

  /// The command.
  mutating func begin() throws(Failure) -> Move {
    guard mechanism.opening != .server else { return command(nil) }
    isOpening = true
    return try move(mechanism.first())
  }

  /// The answer to a challenge. Throws what ends the session: `protocol.limit` for too many of them,
  /// `auth.server-unproven` for a server that fails to prove itself.
  mutating func challenge(_ text: String) throws(Failure) -> Move {
    challenges += 1
    if challenges > Self.maximumChallenges || cancellation != nil {
      throw Failure(.protocolLimit, context: "more than \(Self.maximumChallenges) challenges in one login")
    }
    if let first = unasked {
      // Whatever stands in the challenge: servers write their own words there.
      unasked = nil
      return try line(first)
    }
    let octets = SASLBase64.decode(text)
    if let first = given {
      given = nil
      if octets?.isEmpty ?? true { return try line(first) }
    }
    return try move(mechanism.respond(to: octets))
  }

  /// Goes on after a computation.
  mutating func computed(_ result: Result<SASLOutput, Failure>) throws(Failure) -> Move {
    try move(mechanism.computed(result.get()))
  }

  /// The server says that the login passed. Throws when that must not be believed.
  func succeeded() throws(Failure) {
    if cancellation != nil { throw Failure(.protocolSyntax, context: "success after a cancelled login") }
    if unasked != nil {
      throw Failure(.protocolSyntax, context: "success before the credentials were asked for")
    }
    try mechanism.success()
  }

  /// What a refusal means; `clean` takes secrets out of the server's words.
  func refused(_ failure: Failure, clean: (String) -> String) -> Failure {
    if case .some(.some(let reason)) = cancellation {
      // Nothing was asked of the credentials: it is no fault of theirs.
      return Failure(.protocolSyntax, serverWords: failure.serverWords, context: reason)
    }
    guard let refusal = mechanism.refusal else { return failure }
    let isGeneral = failure.code == .authRejected || failure.code == .authRejectedUnspecified
    let context = "\(failure.context ?? "refused"), the server's reason: \(Failure.presentable(clean(refusal.words)))"
    if isGeneral, let code = refusal.code {
      return Failure(code, serverWords: failure.serverWords, context: context)
    }
    return Failure(
      failure.code, class: failure.failureClass, scope: failure.scope, serverWords: failure.serverWords,
      context: context, retryAfterSeconds: failure.retryAfterSeconds)
  }

  private mutating func move(_ answer: SASLAnswer) throws(Failure) -> Move {
    switch answer {
    case .compute(let computation): return .compute(computation)
    case .send(let message):
      if isOpening {
        isOpening = false
        return command(message)
      }
      return try line(message)
    case .cancel(let reason):
      cancellation = .some(reason)
      return .send(line: "*", secrets: [])
    }
  }

  private mutating func command(_ first: [UInt8]?) -> Move {
    let command = "AUTH " + mechanism.name
    guard let first else { return .send(line: command, secrets: []) }
    if mechanism.opening == .client {
      // `=` stands for an empty message (RFC 4954 section 4).
      let encoded = first.isEmpty ? "=" : SASLBase64.encode(first)
      if command.utf8.count + 1 + encoded.utf8.count + 2 <= commandLimit {
        given = first
        return .send(line: "\(command) \(encoded)", secrets: [encoded] + mechanism.secrets(in: first))
      }
    }
    unasked = first
    return .send(line: command, secrets: [])
  }

  private func line(_ message: [UInt8]) throws(Failure) -> Move {
    let encoded = SASLBase64.encode(message)
    if encoded.utf8.count + 2 > Self.maximumLineOctets {
      throw Failure(.protocolLimit, context: "an answer longer than \(Self.maximumLineOctets) octets")
    }
    return .send(line: encoded, secrets: [encoded] + mechanism.secrets(in: message))
  }
}
