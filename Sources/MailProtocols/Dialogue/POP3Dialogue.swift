import NIOCore
import PostriderCore

/// The client's side of a POP3 session (RFC 1939, 2449, 2595, 5034) without sockets.
///
/// One operation at a time. Each state holds only what exists in it; the credentials live in the login state alone, and
/// what a server might echo of them in the redactor.
struct POP3Dialogue: Dialogue {
  typealias Operation = POP3Operation
  typealias Outcome = POP3Outcome
  typealias Item = POP3Item
  typealias Action = DialogueAction<POP3Outcome, POP3Item>

  /// RETR commands written ahead of their answers when the server takes them.
  static let retrieveWindow = 8
  /// DELE commands written ahead; their answers are short.
  static let deleteWindow = 64
  /// The most that is kept of what TOP gives. A header block is far smaller; mail servers refuse longer ones.
  static let topOctets = 262_144
  /// How far above the allowed size a message is still read to its end, and how much TOP may give, before the session is
  /// given up.
  static let drainOctets: Int64 = 8 << 20

  enum State {
    case idle
    case ended
    case starting(POP3Operation)
    case greeting
    case capabilities(lines: [String]?)
    case startTLS
    case handshaking
    case user(Secret)
    case pass
    case sasl(SASLExchange)
    /// A response is computed elsewhere; the result stands beside it once it is there.
    case computing(SASLExchange, Result<SASLOutput, Failure>?)
    case listing(Listing)
    case retrieving(Retrieval)
    case top(TopBody)
    case deleting(Deletion)
    case quitting
  }

  var state = State.idle
  /// Counts awaited answers, so that the handler knows when a new deadline begins.
  var step = 0
  var redactor = Redactor()
  private(set) var capabilities = POP3Capabilities()
  private(set) var isSecure = false
  /// Whether the greeting was read; what goes wrong before it is no fault of a session.
  var isGreeted = false
  /// Whether credentials may go over a connection without TLS: only when the profile says `none`.
  let allowsClearText: Bool

  /// The bound on a listing.
  var maximumEntries = POP3Limits.listEntries

  init(tls: TLSMode) { allowsClearText = tls == .none }

  mutating func begin(_ operation: POP3Operation, _ input: inout LineBuffer) -> Action? {
    step += 1
    switch operation {
    case .greeting, .secure: break
    default:
      do throws(Failure) {
        try requireQuiet(input)
      } catch {
        state = .ended
        return .broken(error)
      }
    }
    state = .starting(operation)
    return nil
  }

  mutating func secured() {
    isSecure = true
    capabilities = POP3Capabilities()
  }

  func nextBodyPiece() -> ByteBuffer? { nil }
  func feed(_ octets: [UInt8]?) {}
  var wantsBody: Bool { false }
  func interrupted() -> Failure? { nil }

  func lost() -> Failure {
    if !isGreeted {
      return Failure(.pop3Greeting, context: "the connection was closed before a greeting")
    }
    return Failure(.tcpClosed, context: doing.map { "during \($0)" })
  }

  func late(_ awaited: Awaited, tooSlow: Bool) -> Failure {
    switch awaited {
    case .greeting: Failure(.pop3Greeting, context: "no greeting in time")
    case .handshake: Failure(.tcpTimeout, context: "no end of the TLS handshake in time")
    case .body:
      Failure(tooSlow ? .tcpTooSlow : .tcpTimeout, context: doing.map { "in the middle of the answer to \($0)" })
    default: Failure(tooSlow ? .tcpTooSlow : .tcpTimeout, context: doing.map { "waiting for the answer to \($0)" })
    }
  }

  mutating func next(_ input: inout LineBuffer) -> Action {
    do throws(Failure) {
      return try advance(&input)
    } catch {
      state = .ended
      return .broken(clean(error))
    }
  }

  private mutating func advance(_ input: inout LineBuffer) throws(Failure) -> Action {
    switch state {
    case .idle, .ended: return .wait(.answer, step: step)
    case .starting(let operation): return try start(operation, &input)
    case .greeting: return try greeting(&input)
    case .capabilities: return try readCapabilities(&input)
    case .startTLS: return try readStartTLS(&input)
    case .handshaking:
      guard isSecure else { return .wait(.handshake, step: step) }
      return done(.done(words: ""))
    case .user(let password): return try readUser(&input, password)
    case .pass: return try readLogin(&input)
    case .sasl: return try readSASL(&input)
    case .computing: return try takeComputed()
    case .listing: return try readListing(&input)
    case .retrieving: return try readRetrieval(&input)
    case .top: return try readTop(&input)
    case .deleting: return try readDeletion(&input)
    case .quitting: return try readQuit(&input)
    }
  }

  private mutating func start(_ operation: POP3Operation, _ input: inout LineBuffer) throws(Failure) -> Action {
    switch operation {
    case .secure:
      state = .handshaking
      return .startTLS
    case .greeting:
      state = .greeting
      return next(&input)
    case .capabilities:
      state = .capabilities(lines: nil)
      return .send(Self.command("CAPA"))
    case .startTLS:
      state = .startTLS
      return .send(Self.command("STLS"))
    case .login(let login): return try startLogin(login)
    case .list:
      state = .listing(Listing())
      return .send(Self.command("UIDL"))
    case .retrieve(let numbers, let maximum, let budget):
      let window = capabilities.pipelining ? Self.retrieveWindow : 1
      state = .retrieving(
        Retrieval(numbers: numbers, maximumOctets: maximum, window: window, budget: budget))
      return next(&input)
    case .top(let number, let lines):
      state = .top(TopBody())
      return .send(Self.command("TOP \(number) \(lines)"))
    case .delete(let numbers):
      state = .deleting(Deletion(numbers: numbers, window: capabilities.pipelining ? Self.deleteWindow : 1))
      return next(&input)
    case .quit:
      state = .quitting
      return .send(Self.command("QUIT"))
    }
  }

  // MARK: What the parts share

  /// To be asked before a command leaves to which no other is ahead: what is here already is no answer to it. Followed
  /// further, a server that answers twice would have every answer taken for that of the next command, and so one message
  /// for another.
  func requireQuiet(_ input: LineBuffer) throws(Failure) {
    if !input.isEmpty { throw Failure(.protocolSyntax, context: "the server sent an answer that nobody asked for") }
  }

  static func command(_ text: String) -> ByteBuffer { ByteBuffer(string: text + "\r\n") }

  /// The next status line; `nil` when it is not complete.
  mutating func status(
    _ input: inout LineBuffer, limit: Int = POP3Limits.statusLineOctets
  ) throws(Failure) -> POP3StatusLine? {
    guard let line = try input.nextLine(limit: limit) else { return nil }
    step += 1
    return try POP3StatusLine(line)
  }

  /// As ``status(_:limit:)`` where no challenge may come.
  mutating func plainStatus(_ input: inout LineBuffer) throws(Failure) -> Result<String, POP3Error>? {
    switch try status(&input) {
    case nil: return nil
    case .ok(let text): return .success(text)
    case .error(let error): return .failure(error)
    case .challenge: throw Failure(.protocolSyntax, context: "a challenge outside of a login")
    }
  }

  mutating func done(_ outcome: POP3Outcome) -> Action {
    state = .idle
    return .done(outcome)
  }

  mutating func refused(_ error: POP3Error, at stage: POP3Stage) -> Action {
    state = .idle
    return .failed(sorted(error, at: stage))
  }

  func sorted(_ error: POP3Error, at stage: POP3Stage) -> Failure {
    AnswerSorting.failure(
      error, at: stage, words: redactor.clean("-ERR " + error.text, atLogin: stage == .authentication),
      loginDelay: capabilities.loginDelaySeconds)
  }

  /// A failure of the grammar shows the server's line too, so it is redacted as well.
  private func clean(_ failure: Failure) -> Failure {
    Failure(
      failure.code, class: failure.failureClass, scope: failure.scope,
      serverWords: failure.serverWords.map { redactor.clean($0, atLogin: true) }, context: failure.context,
      retryAfterSeconds: failure.retryAfterSeconds)
  }

  mutating func learn(_ capabilities: POP3Capabilities) { self.capabilities = capabilities }

  private var doing: String? {
    switch state {
    case .idle, .ended, .starting: nil
    case .greeting: POP3Stage.greeting.rawValue
    case .capabilities: POP3Stage.capabilities.rawValue
    case .startTLS: POP3Stage.startTLS.rawValue
    case .handshaking: "the TLS handshake"
    case .user, .pass, .sasl, .computing: POP3Stage.authentication.rawValue
    case .listing: POP3Stage.unique.rawValue
    case .retrieving: POP3Stage.retrieve.rawValue
    case .top: POP3Stage.top.rawValue
    case .deleting: POP3Stage.delete.rawValue
    case .quitting: POP3Stage.quit.rawValue
    }
  }
}
