import CGSASL
import PostriderCore

/// CRAM-MD5 (RFC 2195): an HMAC of the server's challenge. The server proves nothing.
struct CRAMMD5Mechanism: SASLMechanism {
  let name = "CRAM-MD5"
  let opening = SASLOpening.server
  private let session: GSASLSession
  private var isFinished = false

  init(userName: String, password: Secret) throws(Failure) {
    session = try GSASLSession(name, [(GSASL_AUTHID, userName), (GSASL_PASSWORD, password.revealed)])
  }

  mutating func respond(to challenge: [UInt8]?) -> SASLAnswer {
    // An empty challenge leaves the digest to be computed once for all time.
    guard let challenge, !challenge.isEmpty, !isFinished else {
      return .cancel("the server's challenge for CRAM-MD5 cannot be read")
    }
    return .compute(.hashing(session, challenge) { .preparing($0) })
  }

  mutating func computed(_ output: SASLOutput) -> SASLAnswer {
    isFinished = output.isFinished
    return .send(output.message)
  }

  func success() throws(Failure) {
    if !isFinished { throw Failure(.protocolSyntax, context: "success before the challenge was answered") }
  }

  func secrets(in message: [UInt8]) -> [String] {
    String(decoding: message, as: UTF8.self).split(separator: " ").last.map { [String($0)] } ?? []
  }
}

/// SCRAM (RFC 5802, 7677): both sides prove that they know the password. Without channel binding, as the TLS library
/// hands out nothing to bind to.
struct SCRAMMechanism: SASLMechanism {
  /// Which hash.
  enum Hash: String, Sendable, CaseIterable {
    case sha1 = "SCRAM-SHA-1"
    case sha256 = "SCRAM-SHA-256"
  }

  private enum State {
    case start
    case waitsForFirst(nonce: String)
    case waitsForFinal
    case refused(SASLRefusal)
    case verifying
    case proven
  }

  let name: String
  let opening = SASLOpening.client
  private let session: GSASLSession
  private let password: Secret
  private let cache: SaltedPasswords
  private let place: SaltedPasswords.Place
  private var fingerprint: SaltedPasswords.Fingerprint?
  private var state = State.start

  init(
    _ hash: Hash, userName: String, password: Secret, authorizationIdentity: String? = nil, host: String,
    cache: SaltedPasswords = .shared
  ) throws(Failure) {
    name = hash.rawValue
    self.password = password
    self.cache = cache
    place = SaltedPasswords.Place(mechanism: hash.rawValue, host: host, userName: userName)
    session = try GSASLSession(
      name,
      [(GSASL_AUTHID, userName), (GSASL_PASSWORD, password.revealed)]
        + (authorizationIdentity.map { [(GSASL_AUTHZID, $0)] } ?? []))
  }

  mutating func first() -> SASLAnswer { .compute(.hashing(session, []) { .preparing($0) }) }

  mutating func respond(to challenge: [UInt8]?) throws(Failure) -> SASLAnswer {
    guard let challenge else { return .cancel("the server's challenge for \(name) is not base64") }
    switch state {
    case .waitsForFirst(let nonce):
      let first = try SCRAMServerFirst(challenge, clientNonce: nonce)
      let fingerprint = cache.fingerprint(password, salt: first.salt, iterations: first.iterations)
      if let salted = cache.value(place, fingerprint) { session.set(GSASL_SCRAM_SALTED_PASSWORD, salted.revealed) }
      self.fingerprint = fingerprint
      state = .waitsForFinal
      return .compute(.hashing(session, challenge) { .preparing($0) })
    case .waitsForFinal:
      switch SCRAMServerFinal(challenge) {
      case .error(let words)?:
        // The server's own error comes after an empty answer.
        let isCredential = ["invalid-proof", "unknown-user", "invalid-username-encoding"].contains(words)
        state = .refused(SASLRefusal(code: isCredential ? .authRejected : nil, words: words))
        return .send([])
      case .verifier?:
        state = .verifying
        return .compute(.hashing(session, challenge) { _ in Self.unproven("its signature is wrong") })
      case nil: throw Self.unproven("its last message cannot be read")
      }
    default: return .cancel("the server goes on after the end of \(name)")
    }
  }

  mutating func computed(_ output: SASLOutput) throws(Failure) -> SASLAnswer {
    switch state {
    case .start:
      let text = String(decoding: output.message, as: UTF8.self)
      guard let nonce = text.split(separator: ",").last, nonce.hasPrefix("r="), nonce.utf8.count > 18 else {
        throw Failure(.internalError, context: "the first message of \(name) has no nonce")
      }
      state = .waitsForFirst(nonce: String(nonce.dropFirst(2)))
    case .verifying:
      guard output.isFinished else { throw Self.unproven("its signature was not checked") }
      state = .proven
      if let fingerprint, let salted = session.value(of: GSASL_SCRAM_SALTED_PASSWORD) {
        cache.keep(Secret(salted), place, fingerprint)
      }
    default: break
    }
    return .send(output.message)
  }

  func success() throws(Failure) {
    guard case .proven = state else { throw Self.unproven("it says that the login passed without a signature") }
  }

  var refusal: SASLRefusal? {
    if case .refused(let refusal) = state { refusal } else { nil }
  }

  func secrets(in message: [UInt8]) -> [String] {
    String(decoding: message, as: UTF8.self).split(separator: ",").filter { $0.hasPrefix("p=") }
      .map { String($0.dropFirst(2)) }
  }

  private static func unproven(_ why: String) -> Failure { Failure(.authServerUnproven, context: why) }
}

/// GSSAPI (RFC 4752) with the worker's own Kerberos identity; both sides prove themselves, no security layer.
struct GSSAPIMechanism: SASLMechanism {
  let name = "GSSAPI"
  let opening = SASLOpening.client
  private let session: GSASLSession
  private var isProven = false
  private var hasBegun = false

  /// The service is `pop` or `smtp` (RFC 5034 section 6, RFC 4954 section 3).
  init(service: String, host: String, authorizationIdentity: String?) throws(Failure) {
    session = try GSASLSession(
      name,
      [(GSASL_SERVICE, service), (GSASL_HOSTNAME, host)]
        + (authorizationIdentity.map { [(GSASL_AUTHZID, $0)] } ?? []))
  }

  mutating func first() -> SASLAnswer { compute([]) }

  mutating func respond(to challenge: [UInt8]?) -> SASLAnswer {
    guard let challenge, !isProven else { return .cancel("the server's challenge for GSSAPI cannot be read") }
    return compute(challenge)
  }

  mutating func computed(_ output: SASLOutput) -> SASLAnswer {
    hasBegun = true
    isProven = output.isFinished
    return .send(output.message)
  }

  func success() throws(Failure) {
    if !isProven { throw Failure(.authServerUnproven, context: "it says that the login passed before its own proof") }
  }

  private func compute(_ challenge: [UInt8]) -> SASLAnswer {
    let session = session
    let hasBegun = hasBegun
    return .compute(
      SASLComputation(kind: .directory) {
        session.step(challenge).mapError { error in
          hasBegun
            ? Failure(.authServerUnproven, context: "its Kerberos answer is wrong (\(error.text))")
            : Failure(.authKerberos, context: error.text)
        }
      })
  }
}

/// NTLM (MS-NLMP) as old Exchange servers want it. Weak: the response can be attacked offline, so it is never chosen
/// without being asked for.
struct NTLMMechanism: SASLMechanism {
  /// Twice as UTF-16 in a buffer of 1,024 octets that holds more than that.
  static let maximumUserNameOctets = 128

  let name = "NTLM"
  let opening = SASLOpening.client
  private let session: GSASLSession
  private var isFinished = false

  init(userName: String, password: Secret) throws(Failure) {
    guard userName.utf8.count <= Self.maximumUserNameOctets else {
      throw Failure(
        .authNoMechanism, context: "NTLM takes user names of at most \(Self.maximumUserNameOctets) octets")
    }
    session = try GSASLSession(name, [(GSASL_AUTHID, userName), (GSASL_PASSWORD, password.revealed)])
  }

  mutating func first() -> SASLAnswer { .compute(.hashing(session, []) { .preparing($0) }) }

  mutating func respond(to challenge: [UInt8]?) -> SASLAnswer {
    guard !isFinished, let checked = challenge.flatMap({ NTLMChallenge.checked($0) }) else {
      return .cancel("the server's challenge for NTLM cannot be read")
    }
    return .compute(.hashing(session, checked) { .preparing($0) })
  }

  mutating func computed(_ output: SASLOutput) -> SASLAnswer {
    isFinished = output.isFinished
    return .send(output.message)
  }

  func success() throws(Failure) {
    if !isFinished { throw Failure(.protocolSyntax, context: "success before the challenge was answered") }
  }
}

extension SASLComputation {
  /// A step of a library's session that hashes.
  fileprivate static func hashing(
    _ session: GSASLSession, _ challenge: [UInt8], _ failure: @escaping @Sendable (GSASLSession.LibraryError) -> Failure
  ) -> SASLComputation {
    SASLComputation(kind: .hashing) { session.step(challenge).mapError(failure) }
  }
}

extension Failure {
  /// What stops the library while it prepares an answer. Whatever the server sent was checked before.
  fileprivate static func preparing(_ error: GSASLSession.LibraryError) -> Failure {
    if error.isOne(of: GSASL_SASLPREP_ERROR) {
      return Failure(
        .authRejected, class: .permanent,
        context: "the user name or password holds characters that SASL forbids (RFC 4013); nothing was sent of it")
    }
    return error.isOne(of: GSASL_MECHANISM_PARSE_ERROR, GSASL_AUTHENTICATION_ERROR)
      ? Failure(.protocolSyntax, context: "the server's challenge cannot be read (\(error.text))")
      : Failure(.internalError, context: "libgsasl: \(error.text)")
  }
}
