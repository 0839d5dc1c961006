import NIOCore
import PostriderCore

/// The client's side of an SMTP submission session (RFC 5321, 3207, 4954, 2920, 6409) without sockets.
struct SMTPDialogue: Dialogue {
  typealias Operation = SMTPOperation
  typealias Outcome = SMTPOutcome
  typealias Item = Never
  typealias Action = DialogueAction<SMTPOutcome, Never>

  enum State {
    case idle
    case ended
    case starting(SMTPOperation)
    case greeting
    case hello(String, extended: Bool)
    case startTLS
    case handshaking
    case sasl(SASLExchange)
    /// A response is computed elsewhere; the result stands beside it once it is there.
    case computing(SASLExchange, Result<SASLOutput, Failure>?)
    case sending(Transaction)
    case quitting
  }

  var state = State.idle
  var step = 0
  var redactor = Redactor()
  var parser = SMTPReplyParser()
  private(set) var extensions = SMTPExtensions()
  private(set) var isSecure = false
  /// Whether the greeting was read; what goes wrong before it is no fault of a session.
  var isGreeted = false
  /// Whether the server may still hold a transaction that was not finished; then RSET comes first.
  var isTransactionOpen = false
  let allowsClearText: Bool

  /// A message piece is written by the handler between two calls of ``next(_:)``, so it lives outside of the state.
  var encoder: MessageEncoder?
  /// Beside it, where the message goes in chunks.
  var chunks: Chunks?
  /// Whether the server has taken a chunk in this session.
  var takesChunks = false
  /// Whether it has shown that it does not know BDAT.
  var refusesChunks = false

  init(tls: TLSMode) { allowsClearText = tls == .none }

  mutating func begin(_ operation: SMTPOperation, _ input: inout LineBuffer) -> Action? {
    step += 1
    switch operation {
    case .greeting, .secure: break
    default:
      if !input.isEmpty { return unasked(&input) }
    }
    state = .starting(operation)
    return nil
  }

  mutating func secured() {
    isSecure = true
    extensions = SMTPExtensions()
  }

  mutating func nextBodyPiece() -> ByteBuffer? { chunks == nil ? encoder?.next(target: 16_384) : nextChunk() }

  mutating func feed(_ octets: [UInt8]?) {
    if let octets { encoder?.append(octets) } else { encoder?.end() }
  }

  /// More is fetched while the last of what came is still being written.
  var wantsBody: Bool { encoder.map { !$0.isWhole && $0.heldOctets < 65_536 } ?? false }

  mutating func next(_ input: inout LineBuffer) -> Action {
    do throws(Failure) {
      return try advance(&input)
    } catch {
      let wasSent = encoder?.isFinished == true
      state = .ended
      // After the final dot an answer that cannot be read is no answer.
      return .broken(wasSent ? clean(error, as: .smtpUncertain) : clean(error))
    }
  }

  private mutating func advance(_ input: inout LineBuffer) throws(Failure) -> Action {
    switch state {
    case .idle, .ended: return .wait(.answer, step: step)
    case .starting(let operation): return try start(operation, &input)
    case .greeting: return try greeting(&input)
    case .hello: return try readHello(&input)
    case .startTLS: return try readStartTLS(&input)
    case .handshaking:
      guard isSecure else { return .wait(.handshake, step: step) }
      return done(.done(words: ""))
    case .sasl: return try readSASL(&input)
    case .computing: return try takeComputed()
    case .sending: return try readTransaction(&input)
    case .quitting:
      guard let reply = try reply(&input) else { return .wait(.answer, step: step) }
      state = .ended
      return .done(.done(words: reply.words))
    }
  }

  private mutating func start(_ operation: SMTPOperation, _ input: inout LineBuffer) throws(Failure) -> Action {
    switch operation {
    case .secure:
      state = .handshaking
      return .startTLS
    case .greeting:
      state = .greeting
      return next(&input)
    case .hello(let name):
      state = .hello(name, extended: true)
      return .send(Self.command("EHLO " + name))
    case .startTLS:
      state = .startTLS
      return .send(Self.command("STARTTLS"))
    case .login(let mechanism, let credentials): return try startLogin(mechanism, credentials)
    case .send(let from, let to, let message): return startTransaction(from: from, to: to, message: message, &input)
    case .quit:
      state = .quitting
      return .send(Self.command("QUIT"))
    }
  }

  // MARK: What the connection's fate means

  func lost() -> Failure {
    if !isGreeted { return Failure(.smtpGreeting, context: "the connection was closed before a greeting") }
    return switch state {
    case .sending: Failure(encoder?.isFinished == true ? .smtpUncertain : .smtpLost)
    default: Failure(.tcpClosed, context: doing.map { "during \($0)" })
    }
  }

  func late(_ awaited: Awaited, tooSlow: Bool) -> Failure {
    if case .sending = state, encoder?.isFinished == true {
      return Failure(.smtpUncertain, context: "no answer to the message in time")
    }
    return switch awaited {
    case .greeting: Failure(.smtpGreeting, context: "no greeting in time")
    case .handshake: Failure(.tcpTimeout, context: "no end of the TLS handshake in time")
    case .writing:
      Failure(tooSlow ? .tcpTooSlow : .tcpTimeout, context: "the server takes the message slower than the minimum rate")
    default: Failure(.tcpTimeout, context: doing.map { "waiting for the answer to \($0)" })
    }
  }

  func interrupted() -> Failure? {
    if case .sending = state, encoder?.isFinished == true {
      return Failure(.smtpUncertain, context: "interrupted while waiting for the answer to the message")
    }
    return nil
  }

  // MARK: What the parts share

  static func command(_ text: String) -> ByteBuffer { ByteBuffer(string: text + "\r\n") }

  /// The next whole reply; `nil` when it is not complete.
  mutating func reply(
    _ input: inout LineBuffer, limit: Int = SMTPLimits.replyLineOctets
  ) throws(Failure) -> SMTPReply? {
    guard let reply = try parser.next(&input, lineLimit: limit) else { return nil }
    step += 1
    return reply
  }

  mutating func done(_ outcome: SMTPOutcome) -> Action {
    state = .idle
    encoder = nil
    return .done(outcome)
  }

  /// Ends the operation, and the session too when the server says that it closes (421).
  mutating func refused(
    _ reply: SMTPReply, at stage: SMTPStage, meaning: (Failure) -> Failure = { $0 }
  ) -> Action {
    let failure = meaning(sorted(reply, at: stage))
    encoder = nil
    if reply.code == 421 || reply.severity < 4 {
      state = .ended
      return .broken(failure)
    }
    state = .idle
    return .failed(failure)
  }

  func sorted(_ reply: SMTPReply, at stage: SMTPStage) -> Failure {
    AnswerSorting.failure(
      reply, at: stage, words: redactor.clean(reply.words, atLogin: stage == .authentication))
  }

  mutating func learn(_ extensions: SMTPExtensions) { self.extensions = extensions }

  /// What came before the command that would ask for it; followed further, every answer would be taken for that of the
  /// next command. A server that closes a session may say so first (421); anything else was not asked for.
  mutating func unasked(_ input: inout LineBuffer) -> Action {
    state = .ended
    var parser = SMTPReplyParser()
    if let reply = try? parser.next(&input, lineLimit: SMTPLimits.replyLineOctets), reply.code == 421 {
      return .broken(Failure(.smtpBusy, scope: .server, serverWords: redactor.clean(reply.words)))
    }
    return .broken(Failure(.protocolSyntax, context: "the server sent an answer that nobody asked for"))
  }

  private func clean(_ failure: Failure, as code: FailureCode? = nil) -> Failure {
    Failure(
      code ?? failure.code, class: code == nil ? failure.failureClass : nil, scope: code == nil ? failure.scope : nil,
      serverWords: failure.serverWords.map { redactor.clean($0, atLogin: true) }, context: failure.context)
  }

  private var doing: String? {
    switch state {
    case .idle, .ended, .starting: nil
    case .greeting: SMTPStage.greeting.rawValue
    case .hello: SMTPStage.hello.rawValue
    case .startTLS: SMTPStage.startTLS.rawValue
    case .handshaking: "the TLS handshake"
    case .sasl, .computing: SMTPStage.authentication.rawValue
    case .sending: "the message"
    case .quitting: SMTPStage.quit.rawValue
    }
  }
}
