import Foundation
import NIOCore
import NIOPosix
import Synchronization

/// A POP3 server for thousands of accounts, one loopback port per profile, that counts its sessions and takes as long
/// over each as it is told.
///
/// Everything runs on one event loop, so what it counts has one order.
final class MailServer: Sendable {
  /// How one profile's accounts are entered.
  struct Port: Sendable {
    /// The profile's number in the census.
    var profile: Int
    /// A loopback address: each profile has another, as breakers and login budgets go by the host.
    var host: String
    /// The one account of the profile; `nil` where each mailbox has its own.
    var account: String?
    /// Whether PIPELINING (RFC 2449) is offered.
    var pipelines: Bool
  }

  /// What the server asks while it works.
  struct Rules: Sendable {
    /// How long a session takes, seconds.
    var sessionSeconds: ClosedRange<Double>
  }

  let census: SessionCensus
  private let drops = Mutex<[String: Maildrop]>([:])
  private let rules: Mutex<Rules>
  private let dice: Mutex<Dice>
  private let trap = Mutex<(@Sendable (_ connection: SocketPair) -> Bool)?>(nil)
  private let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
  private let listeners = Mutex<[any Channel]>([])
  private let sessions = Mutex<[Int: any Channel]>([:])
  private let refused = Mutex(0)

  init(census: SessionCensus, rules: Rules, seed: UInt64) {
    self.census = census
    self.rules = Mutex(rules)
    dice = Mutex(Dice(seed: seed))
  }

  /// Opens the port of a profile; returns its number.
  func open(_ port: Port) async throws -> Int {
    let channel = try await ServerBootstrap(group: group)
      .serverChannelOption(.backlog, value: 512)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelOption(.tcpOption(.tcp_nodelay), value: 1)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(MailSession(server: self, port: port))
        }
      }
      .bind(host: port.host, port: 0).get()
    listeners.withLock { $0.append(channel) }
    return channel.localAddress?.port ?? 0
  }

  func add(_ drop: Maildrop) { drops.withLock { $0[drop.name] = drop } }
  func drop(_ name: String) -> Maildrop? { drops.withLock { $0[name] } }
  var allDrops: [Maildrop] { drops.withLock { Array($0.values) } }

  /// Changes how long sessions take from now on.
  func take(_ seconds: ClosedRange<Double>) { rules.withLock { $0.sessionSeconds = seconds } }

  /// Calls `action` with the connection in the middle of a message body, until it says that it has done what it
  /// waited for.
  func trapRetrieval(_ action: (@Sendable (_ connection: SocketPair) -> Bool)?) { trap.withLock { $0 = action } }

  /// Logins that were refused; none is expected.
  var refusals: Int { refused.withLock { $0 } }

  func stop() async {
    for channel in listeners.withLock({ $0 }) { try? await channel.close().get() }  // Closed already is fine.
    for channel in sessions.withLock({ Array($0.values) }) { channel.close(promise: nil) }
    try? await group.shutdownGracefully()  // Its threads end with the process at the latest.
  }

  // MARK: For its sessions

  func sessionSeconds() -> Double {
    let range = rules.withLock(\.sessionSeconds)
    return dice.withLock { $0.seconds(range) }
  }

  /// Whether a session stops for ever in the middle of this message.
  func isTrapped(_ connection: SocketPair) -> Bool {
    guard let action = trap.withLock({ $0 }) else { return false }
    guard action(connection) else { return false }
    trap.withLock { $0 = nil }
    return true
  }

  func refuse() { refused.withLock { $0 += 1 } }

  func began(_ number: Int, _ channel: any Channel) { sessions.withLock { $0[number] = channel } }
  func ended(_ number: Int) { _ = sessions.withLock { $0.removeValue(forKey: number) } }

  /// Ends the sessions whose clients have left although the event loop has not come to them yet: whoever comes next
  /// must not be counted together with them. On the event loop.
  func noticeLeavers() {
    for (number, channel) in sessions.withLock({ $0 }) where channel.hasPeerLeft { census.closed(number) }
  }
}

extension Channel {
  /// Whether the client's end has arrived at this side's kernel. On the channel's event loop.
  var hasPeerLeft: Bool {
    #if os(Linux)
      guard isActive, let provider = self as? any SocketOptionProvider else { return !isActive }
      let left = NIOLoopBoundBox(false, eventLoop: eventLoop)
      // On its event loop the answer is there at once. 1: established (netinet/tcp.h).
      provider.getTCPInfo().assumeIsolated().whenSuccess { left.value = $0.tcpi_state != 1 }
      return left.value
    #else
      return !isActive
    #endif
  }
}
