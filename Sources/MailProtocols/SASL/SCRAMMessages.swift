import PostriderCore

/// The first message of a SCRAM server, checked before anything is computed for it (RFC 5802 section 7).
///
///     server-first-message = nonce "," salt "," iteration-count ["," extensions]
///
/// A reserved `m=` in front is a mandatory extension, and none is known.
struct SCRAMServerFirst: Hashable {
  /// Rounds of hashing. Both RFCs ask for at least 4,096 (5802 section 5.1, 7677 section 4); a server that asks for
  /// less wants the password to be guessed. A million of them take about two seconds of a processor.
  static let allowedIterations = 4_096...1_000_000

  let salt: [UInt8]
  let iterations: Int

  /// Checks a message against the client's nonce.
  ///
  /// Throws `protocol.limit` for too many rounds, `auth.no-mechanism` for too few, `auth.server-unproven` for a nonce
  /// that is not the client's with more behind it, `protocol.syntax` for anything else.
  init(_ message: [UInt8], clientNonce: String) throws(Failure) {
    guard message.allSatisfy({ (0x21...0x7E).contains($0) }) else { throw Self.unreadable }
    let text = String(decoding: message, as: UTF8.self)
    let parts = text.split(separator: ",", omittingEmptySubsequences: false)
    guard parts.count >= 3, parts[0].hasPrefix("r="), parts[1].hasPrefix("s="), parts[2].hasPrefix("i="),
      let salt = SASLBase64.decode(String(parts[1].dropFirst(2))), !salt.isEmpty
    else { throw Self.unreadable }
    self.salt = salt
    let nonce = parts[0].dropFirst(2)
    guard nonce.hasPrefix(clientNonce), nonce.utf8.count > clientNonce.utf8.count else {
      throw Failure(.authServerUnproven, context: "the server's nonce does not go on from the client's")
    }
    let digits = parts[2].dropFirst(2)
    guard !digits.isEmpty, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }), digits.utf8.first != 0x30 else {
      throw Self.unreadable
    }
    // A number too long for an Int is too large as well.
    iterations = digits.utf8.count > 9 ? .max : Int(digits) ?? .max
    if iterations > Self.allowedIterations.upperBound {
      throw Failure(
        .protocolLimit,
        context: "the server asks for more than \(Self.allowedIterations.upperBound) rounds of hashing")
    }
    if iterations < Self.allowedIterations.lowerBound {
      throw Failure(
        .authNoMechanism,
        context: "the server asks for \(iterations) rounds of hashing, less than \(Self.allowedIterations.lowerBound)"
          + " are not safe")
    }
  }

  private static var unreadable: Failure {
    Failure(.protocolSyntax, context: "the server's first message for SCRAM cannot be read")
  }
}

/// The last message of a SCRAM server (RFC 5802 section 7).
///
///     server-final-message = (server-error / verifier) ["," extensions]
enum SCRAMServerFinal: Hashable {
  /// The proof that the server knows the password, to be checked.
  case verifier
  /// Why the login fails: `invalid-proof`, `unknown-user`, …
  case error(String)

  /// Reads a message; `nil` when it is neither.
  init?(_ message: [UInt8]) {
    let text = String(decoding: message, as: UTF8.self)
    let value = text.prefix { $0 != "," }.dropFirst(2)
    if text.hasPrefix("v=") {
      self = .verifier
    } else if text.hasPrefix("e=") {
      self = .error(String(value))
    } else {
      return nil
    }
  }
}
