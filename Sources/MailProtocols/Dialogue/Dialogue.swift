import NIOCore
import PostriderCore

/// What an answer is waited for, and so which deadline holds.
enum Awaited: Hashable, Sendable {
  /// The greeting: the answer time-out.
  case greeting
  /// One answer: the answer time-out, from the moment its command was written or the answer before it ended.
  case answer
  /// A multi-line body: as long as it keeps the minimum rate.
  case body
  /// The answer to a message's final dot, which comes late by design (RFC 5321 section 4.5.3.2.6, RFC 1047).
  case finalAnswer
  /// Room in the send buffer for more of a message: as long as it keeps the minimum rate.
  case writing
  /// The TLS handshake.
  case handshake
  /// The result of a computation of our own.
  case computation
}

/// What the channel handler shall do next. It carries out and decides nothing.
enum DialogueAction<Outcome: Sendable, Item: Sendable> {
  /// Wait for octets from the server. The step number changes with each awaited answer.
  case wait(Awaited, step: Int)
  /// Write and flush.
  case send(ByteBuffer)
  /// Write pieces of a message as long as the channel takes them; then ask again.
  case sendBody
  /// Wait for more of the message from our own side; nothing is due from the server.
  case awaitBody
  /// Start TLS as a client; then report ``Dialogue/secured()``.
  case startTLS
  /// Compute this away from the event loop; then report ``Dialogue/computed(_:)``. Nothing is read meanwhile.
  case compute(SASLComputation)
  /// Hand an item to the consumer.
  case emit(Item, octets: Int)
  /// The operation is done.
  case done(Outcome)
  /// The operation failed; the session goes on.
  case failed(Failure)
  /// The session cannot go on: close the socket.
  case broken(Failure)
}

/// The state of one session, without sockets: takes events, returns actions.
protocol Dialogue: Sendable {
  associatedtype Operation: Sendable
  associatedtype Outcome: Sendable
  associatedtype Item: Sendable

  /// Starts an operation; none is in progress. Octets that nobody asked for are an error.
  mutating func begin(_ operation: Operation, _ input: inout LineBuffer) -> DialogueAction<Outcome, Item>?
  /// The next action; asked again after each action but `wait`, `done`, `failed` and `broken`, and when octets came.
  mutating func next(_ input: inout LineBuffer) -> DialogueAction<Outcome, Item>
  /// The next piece of a message; `nil` when all that came was handed out.
  mutating func nextBodyPiece() -> ByteBuffer?
  /// Takes the next octets of a message, or `nil` for its end.
  mutating func feed(_ octets: [UInt8]?)
  /// Whether more of a message should be on its way here.
  var wantsBody: Bool { get }
  /// The TLS handshake passed.
  mutating func secured()
  /// A computation ended.
  mutating func computed(_ result: Result<SASLOutput, Failure>)
  /// What the loss of the connection means in this state.
  func lost() -> Failure
  /// What the passing of a deadline means in this state.
  func late(_ awaited: Awaited, tooSlow: Bool) -> Failure
  /// What an interruption from our side means in this state; `nil` when nothing was at stake.
  func interrupted() -> Failure?
}
