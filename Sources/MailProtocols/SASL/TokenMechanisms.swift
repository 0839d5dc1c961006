import FoundationEssentials
import PostriderCore

/// XOAUTH2 of Google and Microsoft: `user=` name `^A` `auth=Bearer ` token `^A^A`.
struct XOAuth2Mechanism: SASLMechanism {
  let name = "XOAUTH2"
  let opening = SASLOpening.clientWhenAsked
  private let message: [UInt8]
  private(set) var refusal: SASLRefusal?

  init(userName: String, accessToken: Secret) {
    message = Array("user=\(userName)\u{1}auth=Bearer \(accessToken.revealed)\u{1}\u{1}".utf8)
  }

  mutating func first() -> SASLAnswer { .send(message) }

  // A challenge behind the token is a refusal; the server's error comes only after an empty line.
  mutating func respond(to challenge: [UInt8]?) -> SASLAnswer {
    refusal = OAuthRefusal.read(challenge)
    return .send([])
  }

  func success() throws(Failure) { try OAuthRefusal.check(refusal) }
}

/// OAUTHBEARER (RFC 7628 section 3.1): `n,a=` name `,^Ahost=` host `^Aport=` port `^Aauth=Bearer ` token `^A^A`.
struct OAuthBearerMechanism: SASLMechanism {
  let name = "OAUTHBEARER"
  let opening = SASLOpening.clientWhenAsked
  private let message: [UInt8]
  private(set) var refusal: SASLRefusal?

  init(identity: String, accessToken: Secret, host: String, port: Int) {
    // A GS2 header's name (RFC 5801 section 4).
    let name = identity.replacing("=", with: "=3D").replacing(",", with: "=2C")
    message = Array(
      "n,a=\(name),\u{1}host=\(host)\u{1}port=\(port)\u{1}auth=Bearer \(accessToken.revealed)\u{1}\u{1}".utf8)
  }

  mutating func first() -> SASLAnswer { .send(message) }

  // RFC 7628 section 3.2.3: `^A` after the error, and then the server fails the login.
  mutating func respond(to challenge: [UInt8]?) -> SASLAnswer {
    refusal = OAuthRefusal.read(challenge)
    return .send([1])
  }

  func success() throws(Failure) { try OAuthRefusal.check(refusal) }
}

/// The JSON in which a server says why it refuses a token (RFC 7628 section 3.2.2, and Google's XOAUTH2 protocol).
enum OAuthRefusal {
  private struct Words: Decodable {
    var status: String?
    var scope: String?

    enum Keys: CodingKey { case status, scope }

    // Both may be numbers, and a field of another kind must not hide the other.
    init(from decoder: any Decoder) throws {
      let fields = try decoder.container(keyedBy: Keys.self)
      func text(_ key: Keys) -> String? {
        // A field that is neither says nothing.
        (try? fields.decode(String.self, forKey: key)) ?? (try? fields.decode(Int.self, forKey: key)).map { "\($0)" }
      }
      status = text(.status)
      scope = text(.scope)
    }
  }

  static func read(_ challenge: [UInt8]?) -> SASLRefusal {
    guard let challenge, let words = try? JSONDecoder().decode(Words.self, from: Data(challenge)) else {
      // What cannot be read is a refusal all the same; the server's next answer says why.
      return SASLRefusal(code: nil, words: "none that can be read")
    }
    let code: FailureCode? =
      switch words.status?.lowercased() {
      case "insufficient_scope"?, "403"?: .oauthScope
      case "invalid_token"?, "400"?, "401"?: .authRejected
      default: nil
      }
    let parts = [words.status.map { "status \($0)" }, words.scope.map { "scope \($0)" }].compactMap { $0 }
    return SASLRefusal(code: code, words: parts.isEmpty ? "no status" : parts.joined(separator: ", "))
  }

  static func check(_ refusal: SASLRefusal?) throws(Failure) {
    if refusal != nil { throw Failure(.protocolSyntax, context: "success after the token was refused") }
  }
}
