import Foundation
import NIOCore
import NIOPosix
import Synchronization

/// How far a message, or a session, has come at the sink.
enum SinkPhase: Int, Sendable, Comparable, CustomStringConvertible {
  case hello, login, mail, recipient
  /// DATA has arrived.
  case data
  /// The client was told to go ahead.
  case goAhead
  /// Some octets of the message have arrived.
  case body
  /// All of it has, with its final dot: the sink has the message.
  case whole
  /// The client was told so, or rather: the answer has left.
  case answered
  case quit

  static func < (a: SinkPhase, b: SinkPhase) -> Bool { a.rawValue < b.rawValue }

  var description: String {
    switch self {
    case .hello: "hello"
    case .login: "login"
    case .mail: "mail"
    case .recipient: "recipient"
    case .data: "data"
    case .goAhead: "go-ahead"
    case .body: "body"
    case .whole: "whole"
    case .answered: "answered"
    case .quit: "quit"
    }
  }
}

/// What the sink saw of one message. It is known by its recipient's name before its octets arrive.
struct SunkMessage: Sendable {
  /// How often it arrived whole.
  var accepted = 0
  /// How far the last attempt came, and how many octets of it arrived.
  var phase = SinkPhase.mail
  var octets = 0
  /// The SHA-256 of what arrived, in hexadecimal, and its Message-ID.
  var hash = ""
  var messageID = ""
}

/// An SMTP server that takes every message, counts them and its sessions, and stops where it is told.
///
/// Everything runs on one event loop, so what it counts has one order.
final class SendSink: Sendable {
  /// Stops a session for ever when it says that it has done what it waited for.
  typealias Trap = @Sendable (_ connection: SocketPair) -> Bool

  let census: SessionCensus
  private let seconds: ClosedRange<Double>
  private let dice: Mutex<Dice>
  private let messages = Mutex<[Int: SunkMessage]>([:])
  private let trap = Mutex<(phase: SinkPhase, isLarge: Bool, action: Trap)?>(nil)
  private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
  private let listeners = Mutex<[any Channel]>([])
  private let sessions = Mutex<[Int: any Channel]>([:])

  /// A larger message does not fit into the buffers between client and sink.
  static let largeOctets = 8 << 20

  init(census: SessionCensus, answerMilliseconds: ClosedRange<Double>, seed: UInt64) {
    self.census = census
    seconds = answerMilliseconds.lowerBound / 1_000...answerMilliseconds.upperBound / 1_000
    dice = Mutex(Dice(seed: seed))
  }

  /// Opens a port with or without PIPELINING (RFC 2920); returns its number.
  func open(host: String, pipelines: Bool) async throws -> Int {
    let channel = try await ServerBootstrap(group: group)
      .serverChannelOption(.backlog, value: 512)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      // Small, so that a client cannot be far ahead of what was read.
      .serverChannelOption(.socketOption(.so_rcvbuf), value: 65_536)
      .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(SinkSession(sink: self, pipelines: pipelines))
        }
      }
      .bind(host: host, port: 0).get()
    listeners.withLock { $0.append(channel) }
    return channel.localAddress?.port ?? 0
  }

  /// Calls `action` when a session comes to a phase, until it says that it has done what it waited for; a session that
  /// has come to a message's body only with a large one.
  func set(_ phase: SinkPhase, _ action: @escaping Trap) {
    trap.withLock { $0 = (phase, phase == .body, action) }
  }

  /// Takes the trap away.
  func unset() { trap.withLock { $0 = nil } }

  /// What was seen of every message, by its number.
  var seen: [Int: SunkMessage] { messages.withLock { $0 } }

  func stop() async {
    for channel in listeners.withLock({ $0 }) { try? await channel.close().get() }  // Closed already is fine.
    for channel in sessions.withLock({ Array($0.values) }) { channel.close(promise: nil) }
    try? await group.shutdownGracefully()  // Its thread ends with the process at the latest.
  }

  // MARK: For its sessions

  func pause() -> TimeAmount { .milliseconds(Int64(dice.withLock { $0.seconds(seconds) } * 1_000)) }

  func note(_ number: Int, _ change: (inout SunkMessage) -> Void) {
    messages.withLock { change(&$0[number, default: SunkMessage()]) }
  }

  /// Whether a session stops for ever here.
  func isTrapped(_ phase: SinkPhase, _ connection: SocketPair, size: Int) -> Bool {
    guard let set = trap.withLock({ $0 }), set.phase == phase, !set.isLarge || size >= Self.largeOctets,
      set.action(connection)
    else { return false }
    unset()
    return true
  }

  func began(_ number: Int, _ channel: any Channel) { sessions.withLock { $0[number] = channel } }
  func ended(_ number: Int) { _ = sessions.withLock { $0.removeValue(forKey: number) } }

  /// Ends the sessions whose clients have left although the event loop has not come to them yet: whoever comes next
  /// must not be counted together with them. On the event loop.
  func noticeLeavers() {
    for (number, channel) in sessions.withLock({ $0 }) where channel.hasPeerLeft { census.closed(number) }
  }
}
