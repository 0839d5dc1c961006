import NIOCore
import PostriderCore
import Synchronization

/// A POP3 session (RFC 1939). One call at a time; it ends with ``quit()`` or ``abort()``.
///
/// Calls throw ``Failure``, or `CancellationError` when the task was cancelled; cancelling closes the socket. After an
/// answer of `-ERR` the session goes on; after any other failure it is closed and every later call throws again.
public final class POP3Session: Sendable {
  let connection: DialogueConnection<POP3Dialogue>
  private let endpoint: MailEndpoint
  private let trace: SessionTrace
  private let known = Mutex(Known())

  private struct Known {
    var capabilities = POP3Capabilities()
    /// What a server that does not say showed of TOP when it was asked first.
    var hasTop: Bool?
  }

  init(connection: DialogueConnection<POP3Dialogue>, endpoint: MailEndpoint, trace: SessionTrace) {
    self.connection = connection
    self.endpoint = endpoint
    self.trace = trace
  }

  /// What the server can do, as it said last. Nothing that was said before TLS counts after it.
  public var capabilities: POP3Capabilities { known.withLock { $0.capabilities } }

  /// Whether headers can be asked for. A server that does not know CAPA mostly has TOP, which is older: it counts as
  /// having it until it refuses the first.
  public var mayTop: Bool {
    known.withLock { $0.capabilities.isKnown ? $0.capabilities.top : $0.hasTop ?? true }
  }

  /// Runs what uses this session. The socket is closed when that throws, and at once when the task is cancelled,
  /// whatever it waits for then, be it the mail server or a database.
  public func whileOpen<Result: Sendable>(_ body: () async throws -> Result) async throws -> Result {
    try await connection.whileOpen(body)
  }

  /// Greeting, CAPA, STLS, CAPA.
  func enter() async throws {
    try await step(.greeting, "greeting of \(endpoint.host)", .greeting)
    try await askCapabilities()
    guard endpoint.tls == .starttls else { return }
    try await trace.measure(.tls, "STLS with \(endpoint.host)") {
      let capabilities = self.capabilities
      if capabilities.isKnown, !capabilities.stls {
        throw Failure(.tlsStartTLSMissing, context: "the server does not offer STLS")
      }
      return ((), try await connection.secure(.startTLS, trace))
    }
    try await askCapabilities()
  }

  /// Logs in.
  ///
  /// `auto` takes the strongest way that is offered: SCRAM-SHA-256, SCRAM-SHA-1, PLAIN, USER and PASS, LOGIN, CRAM-MD5
  /// with a password (without TLS, CRAM-MD5 before those in the clear), OAUTHBEARER or XOAUTH2 with a token. Throws
  /// `auth.no-mechanism` when nothing fits, `auth.server-unproven` when the server must not be believed, and
  /// `auth.rejected` of class permanent when name or password hold CR, LF or NUL; nothing is sent then.
  public func authenticate(_ credentials: Credentials, mechanism: AuthenticationMechanism) async throws {
    let login = choose(credentials, mechanism)
    try await trace.measure(.authenticate, credentials.attempt(by: try? login.get().name)) {
      let login = try login.get()
      guard case .done(let words) = try await connection.perform(.login(login)) else { return ((), nil) }
      return ((), words)
    }
    // RFC 2449 section 5: capabilities may differ after login. Asking costs a round trip, so only when one is missed.
    let now = capabilities
    if now.isKnown, !now.uidl || now.variesByUser { try await askCapabilities() }
  }

  private func choose(_ credentials: Credentials, _ mechanism: AuthenticationMechanism) -> Result<POP3Login, Failure> {
    do throws(Failure) {
      try CommandValue.check(credentials)
      return .success(try POP3LoginChoice.choose(credentials, mechanism, capabilities, LoginTarget(endpoint)))
    } catch {
      return .failure(error)
    }
  }

  /// Lists the mailbox with UIDL and hands out its messages in the server's order, page by page; returns how many there
  /// are. The consumer is waited for. Throws `pop3.no-uidl`, and `protocol.limit` behind the 1,000,000th message.
  @discardableResult
  public func list(_ consume: ([POP3Entry]) async throws -> Void = { _ in }) async throws -> Int {
    try await trace.measure(.list, "UIDL") {
      var count = 0
      try await connection.perform(.list) { item in
        guard case .entries(let entries) = item else { return }
        count += entries.count
        try await consume(entries)
      }
      return (count, "\(count) messages")
    }
  }

  /// Fetches messages in the order given and hands their parts to `consume`, which is waited for: while more than
  /// about 256 KiB wait, nothing is read from the socket.
  ///
  /// Each message ends with ``MessageChunk/end(sizeOctets:)`` or ``MessageChunk/refused(_:)``; a refused one does not
  /// stop the others. A message above `maximumOctets` is refused with `message.too-large`; of one that is more than 8 MiB
  /// above, the end is not waited for: the session ends with the same failure. When `consume` throws, the session is
  /// closed and the error passed on.
  ///
  /// Returns how many messages came or were refused: fewer than asked for when the budget was used up before.
  @discardableResult
  public func retrieve(
    _ numbers: [Int], maximumOctets: Int64, budget: RetrievalBudget = RetrievalBudget(),
    consume: (Int, MessageChunk) async throws -> Void
  ) async throws -> Int {
    if numbers.isEmpty { return 0 }
    return try await trace.measure(.fetch, "RETR of \(numbers.count) messages") {
      var octets: Int64 = 0
      var (complete, refused) = (0, 0)
      try await connection.perform(.retrieve(numbers, maximumOctets: maximumOctets, budget: budget)) { item in
        guard case .message(let number, let chunk) = item else { return }
        switch chunk {
        case .octets: break
        case .end(let size):
          complete += 1
          octets += size
        case .refused: refused += 1
        }
        try await consume(number, chunk)
      }
      return (complete + refused, "\(complete) messages, \(octets) octets, \(refused) refused")
    }
  }

  /// The header block and the first lines of a message's body (RFC 1939 section 7); what is above 256 KiB is left out.
  public func top(_ number: Int, lines: Int) async throws -> [UInt8] {
    try await trace.measure(.fetch, "TOP \(number) \(lines)") {
      guard case .octets(let octets) = try await connection.perform(.top(number, lines: max(0, lines))) else {
        return ([], nil)
      }
      return (octets, "\(octets.count) octets")
    }
  }

  /// The header blocks of messages, one after the other, in one step of the trace; `nil` for one that was refused.
  ///
  /// `consume` is waited for; once it returns `false`, no further one is asked for. Nothing is handed out by a server
  /// that turns out to have no TOP (``mayTop``). Throws what ``top(_:lines:)`` does, except that a message was refused.
  public func headers(of numbers: [Int], consume: (Int, [UInt8]?) async throws -> Bool) async throws {
    if numbers.isEmpty { return }
    try await trace.measure(.fetch, "TOP of \(numbers.count) messages") {
      var (asked, refused) = (0, 0)
      for number in numbers {
        let octets = try await header(of: number)
        guard mayTop else { break }
        asked += 1
        if octets == nil { refused += 1 }
        guard try await consume(number, octets) else { break }
      }
      return ((), mayTop ? "\(asked) headers, \(refused) refused" : "TOP is not known")
    }
  }

  private func header(of number: Int) async throws -> [UInt8]? {
    do {
      guard case .octets(let octets) = try await connection.perform(.top(number, lines: 0)) else { return nil }
      noteTop(true)
      return octets
    } catch let failure as Failure where failure.failureClass == .message {
      noteTop(false)
      return nil
    }
  }

  /// The first answer of a server that does not say what it can do decides.
  private func noteTop(_ worked: Bool) {
    known.withLock { if $0.hasTop == nil { $0.hasTop = worked } }
  }

  /// Marks messages as deleted; ``quit()`` makes it true. Returns those that the server refused, with the reason.
  public func delete(_ numbers: [Int]) async throws -> [Int: Failure] {
    if numbers.isEmpty { return [:] }
    return try await trace.measure(.delete, "DELE of \(numbers.count) messages") {
      guard case .deleted(let failures) = try await connection.perform(.delete(numbers)) else { return ([:], nil) }
      return (failures, "\(numbers.count - failures.count) deleted, \(failures.count) refused")
    }
  }

  /// Ends the session; messages marked as deleted are removed by the server. Throws `pop3.rejected` when it says that
  /// some were not. The socket is closed in any case.
  public func quit() async throws {
    defer { connection.interrupt(.finished) }
    try await step(.quit, "QUIT", .quit)
  }

  /// Closes the socket at once, from any thread. Every pending call throws `run.aborted`; nothing is deleted.
  public func abort() { connection.interrupt(.aborted) }

  private func askCapabilities() async throws {
    try await trace.measure(.capabilities, "CAPA") {
      guard case .capabilities(let capabilities) = try await connection.perform(.capabilities) else {
        return ((), nil)
      }
      known.withLock { $0.capabilities = capabilities }
      return ((), capabilities.isKnown ? capabilities.summary : "CAPA is not known")
    }
  }

  private func step(_ name: StepName, _ tried: String, _ operation: POP3Operation) async throws {
    try await trace.measure(name, tried) {
      guard case .done(let words) = try await connection.perform(operation) else { return ((), nil) }
      return ((), words)
    }
  }
}

extension Credentials {
  /// What is tried, for people: never a secret.
  func attempt(by method: String?) -> String {
    var text = "login as \(Failure.presentable(userName))"
    if let authorizationIdentity { text += " for \(Failure.presentable(authorizationIdentity))" }
    if let method { text += " by \(method)" }
    return text
  }
}

extension POP3Capabilities {
  /// The tags that matter, as one line for people.
  var summary: String {
    var words: [String] = []
    if top { words.append("TOP") }
    if uidl { words.append("UIDL") }
    if user { words.append("USER") }
    if !sasl.isEmpty { words.append("SASL " + sasl.sorted().joined(separator: " ")) }
    if stls { words.append("STLS") }
    if pipelining { words.append("PIPELINING") }
    if responseCodes { words.append("RESP-CODES") }
    if let loginDelaySeconds { words.append("LOGIN-DELAY \(loginDelaySeconds)") }
    if let expireDays { words.append("EXPIRE \(expireDays)") }
    return words.joined(separator: ", ")
  }
}
