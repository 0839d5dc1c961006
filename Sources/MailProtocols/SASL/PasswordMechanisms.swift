import PostriderCore

/// SASL PLAIN (RFC 4616): `authzid NUL authcid NUL passwd`.
struct PlainMechanism: SASLMechanism {
  let name = "PLAIN"
  let opening = SASLOpening.client
  private let message: [UInt8]

  init(userName: String, password: Secret, authorizationIdentity: String? = nil) {
    message = Self.message(userName, password, authorizationIdentity)
  }

  static func message(_ userName: String, _ password: Secret, _ authorizationIdentity: String?) -> [UInt8] {
    var message = Array((authorizationIdentity ?? "").utf8)
    message.append(0)
    message += userName.utf8
    message.append(0)
    message += password.revealed.utf8
    return message
  }

  mutating func first() -> SASLAnswer { .send(message) }
  mutating func respond(to challenge: [UInt8]?) -> SASLAnswer { .cancel(nil) }
  func success() {}
}

/// SASL LOGIN (draft-murchison-sasl-login): user name, then password. The prompts are of any text and are not read.
struct LoginMechanism: SASLMechanism {
  let name = "LOGIN"
  let opening = SASLOpening.server
  private var answers: [[UInt8]]

  init(userName: String, password: Secret) {
    answers = [Array(password.revealed.utf8), Array(userName.utf8)]
  }

  mutating func respond(to challenge: [UInt8]?) -> SASLAnswer {
    answers.popLast().map { .send($0) } ?? .cancel(nil)
  }

  func success() throws(Failure) {
    if !answers.isEmpty { throw Failure(.protocolSyntax, context: "success before the password was asked for") }
  }
}
