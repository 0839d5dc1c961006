import FoundationEssentials
import PostriderCore

/// The client's side of one SASL exchange (RFC 4422), as messages without base64 and without sockets.
///
/// ``SASLExchange`` carries it over POP3 and SMTP. A mechanism is added by writing one of these.
protocol SASLMechanism: Sendable {
  /// The registered name, upper case.
  var name: String { get }
  /// Who speaks first.
  var opening: SASLOpening { get }
  /// The client's first message; asked for once, and only where the client speaks first.
  mutating func first() throws(Failure) -> SASLAnswer
  /// The answer to a challenge; `nil` is one that is not base64.
  mutating func respond(to challenge: [UInt8]?) throws(Failure) -> SASLAnswer
  /// Takes what a computation gave and answers with it.
  mutating func computed(_ output: SASLOutput) throws(Failure) -> SASLAnswer
  /// Throws where the server's success must not be believed: before all was said, or unproven by the server.
  func success() throws(Failure)
  /// What the server said about a refusal inside the exchange; it is not redacted.
  var refusal: SASLRefusal? { get }
  /// The parts of a message that nobody must see, besides its whole.
  func secrets(in message: [UInt8]) -> [String]
}

extension SASLMechanism {
  mutating func first() throws(Failure) -> SASLAnswer { throw Failure(.internalError, context: "\(name) has no start") }
  mutating func computed(_ output: SASLOutput) throws(Failure) -> SASLAnswer { .send(output.message) }
  var refusal: SASLRefusal? { nil }
  func secrets(in message: [UInt8]) -> [String] { [] }
}

/// Who speaks first in an exchange.
enum SASLOpening: Hashable, Sendable {
  /// The server.
  case server
  /// The client, in the command where there is room.
  case client
  /// The client, but only when the server asked: bearer tokens are longer than a command line may be (RFC 5034
  /// section 4), and Exchange takes them in no other way.
  case clientWhenAsked
}

/// What a mechanism says next.
enum SASLAnswer: Sendable {
  /// This message, which may be empty.
  case send([UInt8])
  /// Something that takes time, computed away from the event loop.
  case compute(SASLComputation)
  /// The end of the exchange. The reason stands for a server whose challenge makes no sense; without one, the server's
  /// own answer is the reason.
  case cancel(String?)
}

/// Work that must not be done on an event loop.
struct SASLComputation: Sendable {
  /// What it waits for, which decides where it runs and what its lateness means.
  enum Kind: Hashable, Sendable {
    /// The processor: hashing of a password.
    case hashing
    /// Another server: the Kerberos KDC.
    case directory
  }

  let kind: Kind
  let run: @Sendable () -> Result<SASLOutput, Failure>

  /// What it means when it takes longer than an answer may.
  var late: Failure {
    switch kind {
    case .hashing: Failure(.internalError, context: "hashing the password took too long; the worker is overloaded")
    case .directory: Failure(.authKerberos, context: "no answer from the Kerberos KDC in time")
    }
  }
}

/// What a computation gave.
struct SASLOutput: Hashable, Sendable {
  /// What is sent.
  var message: [UInt8]
  /// Whether the mechanism has no more to say, and whatever it proves is proven.
  var isFinished: Bool
}

/// Why a server refused, as it said in its own challenge.
struct SASLRefusal: Hashable, Sendable {
  /// What it means; `nil` when the server's last answer says it as well.
  var code: FailureCode?
  /// The server's words.
  var words: String
}

/// The names of mechanisms (RFC 4422 section 3.1).
enum SASLNames {
  /// Whether a word is a name that a login here may have sent.
  static func isKnown(_ word: Substring) -> Bool {
    ["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER", "NTLM", "GSSAPI"]
      .contains(word.uppercased())
  }
}

/// Base64 as SASL uses it on the wire (RFC 4422, RFC 4648 section 4).
enum SASLBase64 {
  /// Encodes a message.
  static func encode(_ octets: [UInt8]) -> String { Data(octets).base64EncodedString() }
  /// Decodes a challenge; `nil` when it is not base64.
  static func decode(_ text: String) -> [UInt8]? { Data(base64Encoded: text).map { [UInt8]($0) } }
}
