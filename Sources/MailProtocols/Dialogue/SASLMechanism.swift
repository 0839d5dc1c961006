import FoundationEssentials
import PostriderCore

/// The client's side of one SASL exchange (RFC 4422). A mechanism is added by writing one of these.
protocol SASLMechanism: Sendable {
  /// The registered name, upper case.
  var name: String { get }
  /// What may be sent with the command; `nil` when the server speaks first.
  func initialResponse() -> [UInt8]?
  /// The answer to a challenge, decoded; `nil` cancels the exchange. A challenge that is not base64 comes as `nil`.
  mutating func respond(to challenge: [UInt8]?) throws(Failure) -> [UInt8]?
}

/// SASL PLAIN (RFC 4616): `authzid NUL authcid NUL passwd`.
struct PlainMechanism: SASLMechanism {
  let name = "PLAIN"
  private let message: [UInt8]
  private var sent = false

  init(_ credentials: Credentials) { message = Self.message(credentials) }

  static func message(_ credentials: Credentials) -> [UInt8] {
    var message = Array((credentials.authorizationIdentity ?? "").utf8)
    message.append(0)
    message += credentials.userName.utf8
    message.append(0)
    message += credentials.password.revealed.utf8
    return message
  }

  func initialResponse() -> [UInt8]? { message }

  // A server that did not read the initial response asks once more with an empty challenge; a second time is a fault.
  mutating func respond(to challenge: [UInt8]?) throws(Failure) -> [UInt8]? {
    defer { sent = true }
    return sent ? nil : message
  }
}

/// SASL LOGIN (draft-murchison-sasl-login): user name, then password. The prompts are of any text and are not read.
struct LoginMechanism: SASLMechanism {
  let name = "LOGIN"
  private var answers: [[UInt8]]

  init(_ credentials: Credentials) {
    answers = [Array(credentials.password.revealed.utf8), Array(credentials.userName.utf8)]
  }

  func initialResponse() -> [UInt8]? { nil }
  mutating func respond(to challenge: [UInt8]?) throws(Failure) -> [UInt8]? { answers.popLast() }
}

/// Base64 as SASL uses it on the wire (RFC 4422, RFC 4648 section 4).
enum SASLBase64 {
  /// Encodes a response; `=` stands for an empty initial one (RFC 4954 section 4).
  static func encode(_ octets: [UInt8]) -> String { Data(octets).base64EncodedString() }
  /// Decodes a challenge; `nil` when it is not base64.
  static func decode(_ text: String) -> [UInt8]? { Data(base64Encoded: text).map { [UInt8]($0) } }
}

/// Checks on values that reach a command.
enum CommandValue {
  /// Whether a value can end or alter the command it stands in.
  static func isDangerous(_ text: String) -> Bool { text.utf8.contains { $0 == 0 || $0 == 0x0A || $0 == 0x0D } }

  /// Throws `auth.rejected`, not to be tried again, when a part of the credentials holds CR, LF or NUL.
  static func check(_ credentials: Credentials) throws(Failure) {
    let parts = [
      ("user name", credentials.userName), ("password", credentials.password.revealed),
      ("authorization identity", credentials.authorizationIdentity ?? ""),
    ]
    for (name, value) in parts where isDangerous(value) {
      throw Failure(
        .authRejected, class: .permanent, context: "the \(name) holds CR, LF or NUL; nothing was sent to the server")
    }
  }
}
