import NIOCore
import NIOPosix
import NIOSSL
import PostriderCore
import Synchronization

/// A mail server on 127.0.0.1 that follows a script: slow, silent, talking too much, closing mid-line, lying.
///
/// Each connection plays the next script; the last one is played again for every further connection. Everything that
/// clients send is recorded.
public final class ScriptedMailServer: Sendable {
  /// One thing that the server does on a connection.
  public enum Step: Sendable {
    /// Sends text as it is, CRLF included.
    case send(String)
    /// Sends octets.
    case sendBytes([UInt8])
    /// Reads a line; a line that does not begin with this is noted in ``ScriptedMailServer/mismatches``, and the
    /// connection closed.
    case expect(String)
    /// Reads up to and including a line with a lone dot.
    case readMessage
    /// Answers lines until the closure says ``Reply/next``.
    case serve(@Sendable (String) -> Reply)
    /// Tells the test that this point is reached.
    case signal(ScriptSignal)
    /// Goes on when the test says so.
    case wait(ScriptSignal)
    /// Sends one octet at a time.
    case drip(String, every: Duration)
    /// Sends the same text again and again, as fast as the client takes it.
    case flood(String)
    /// Sends what the closure gives for 0, 1, 2 …, as fast as the client takes it, until it gives `nil`.
    case stream(@Sendable (Int) -> String?)
    /// Takes a TLS handshake from here on.
    case startTLS(ScriptedTLS)
    /// Stops reading: what the client sends fills its buffers.
    case stopReading
    /// Closes the connection.
    case close
  }

  /// An answer of a ``Step/serve(_:)`` step.
  public enum Reply: Sendable {
    /// Sends text, CRLF included; empty for nothing.
    case text(String)
    /// Sends text, then reads up to a lone dot and hands all of that to the closure as its next line.
    case readMessage(String)
    /// Reads so many octets as one entry of the record, then sends text: a chunk of BDAT.
    case readOctets(Int, String)
    /// Sends text and closes.
    case close(String)
    /// Goes on with the next step of the script.
    case next
  }

  /// What one client did.
  public struct Connection: Sendable {
    /// The lines it sent, without CRLF; a message read by ``Step/readMessage`` is one entry.
    public var lines: [String] = []
    /// Whether it is closed, by whichever side.
    public var isClosed = false
    /// How many other connections were open when it came.
    public var others = 0
  }

  private struct State {
    var connections: [Connection] = []
    var mismatches: [String] = []
  }

  /// The port it listens on.
  public let port: Int
  private let channel: any Channel
  private let record: Record

  /// Shared with the connections' handlers.
  final class Record: Sendable {
    private let state = Mutex(State())
    let script: @Sendable (Int) -> [Step]

    init(script: @escaping @Sendable (Int) -> [Step]) { self.script = script }

    func open() -> (number: Int, script: [Step]) {
      let number = state.withLock {
        let others = $0.connections.count { !$0.isClosed }
        $0.connections.append(Connection(others: others))
        return $0.connections.count - 1
      }
      return (number, script(number))
    }

    func line(_ number: Int, _ line: String) { state.withLock { $0.connections[number].lines.append(line) } }
    func closed(_ number: Int) { state.withLock { $0.connections[number].isClosed = true } }
    func mismatch(_ text: String) { state.withLock { $0.mismatches.append(text) } }
    var connections: [Connection] { state.withLock { $0.connections } }
    var mismatches: [String] { state.withLock { $0.mismatches } }
  }

  private init(channel: any Channel, record: Record) {
    self.channel = channel
    self.record = record
    port = channel.localAddress?.port ?? 0
  }

  /// Starts a server with one script for each connection.
  public static func start(_ scripts: [Step]...) async throws -> ScriptedMailServer {
    try await start { number in scripts.isEmpty ? [] : scripts[min(number, scripts.count - 1)] }
  }

  /// Starts a server that chooses a script when a connection comes; the first has the number 0.
  public static func start(
    choosing script: @escaping @Sendable (Int) -> [Step]
  ) async throws -> ScriptedMailServer {
    let record = Record(script: script)
    let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          try channel.pipeline.syncOperations.addHandler(ScriptHandler(record: record))
        }
      }
      .bind(host: "127.0.0.1", port: 0).get()
    return ScriptedMailServer(channel: channel, record: record)
  }

  /// What the clients did, in the order they came.
  public var connections: [Connection] { record.connections }
  /// The lines of the first client.
  public var lines: [String] { connections.first?.lines ?? [] }
  /// Lines that were not what a script expected.
  public var mismatches: [String] { record.mismatches }

  /// Waits until a condition on the record holds; returns whether it did within the time, which is less than the 20 s
  /// after which a client of ``TestCluster`` gives up an answer by itself.
  public func wait(
    within time: Duration = .seconds(18), until condition: ([Connection]) -> Bool
  ) async -> Bool {
    let deadline = ContinuousClock.now + time
    while ContinuousClock.now < deadline {
      if condition(connections) { return true }
      try? await Task.sleep(for: .milliseconds(5))  // A cancelled test just looks once more.
    }
    return condition(connections)
  }

  /// Stops listening. Open connections go on until their clients leave.
  public func stop() async {
    try? await channel.close().get()  // Closed already is fine.
  }
}

/// Something that a test and a script wait for.
public final class ScriptSignal: Sendable {
  private struct State {
    var isFired = false
    var waiting: [@Sendable () -> Void] = []
  }

  private let state = Mutex(State())

  /// Not fired yet.
  public init() {}

  /// Fires it; whoever waits goes on. Firing again does nothing.
  public func fire() {
    let waiting = state.withLock { state -> [@Sendable () -> Void] in
      state.isFired = true
      defer { state.waiting = [] }
      return state.waiting
    }
    for body in waiting { body() }
  }

  /// Whether it was fired.
  public var isFired: Bool { state.withLock { $0.isFired } }

  /// Runs the body once it is fired, at once if it is already.
  public func whenFired(_ body: @escaping @Sendable () -> Void) {
    let isFired = state.withLock { state -> Bool in
      if !state.isFired { state.waiting.append(body) }
      return state.isFired
    }
    if isFired { body() }
  }

  /// Waits for it.
  public func wait() async {
    await withCheckedContinuation { continuation in whenFired { continuation.resume() } }
  }
}

/// What a scripted server shows in a TLS handshake.
public struct ScriptedTLS: Sendable {
  /// The certificate, and those between it and the authority, PEM.
  public var certificatesPEM: String
  /// Its key, PEM.
  public var privateKeyPEM: String
  /// Whether it speaks only TLS 1.0 and 1.1.
  public var isOld: Bool

  /// Describes an identity.
  public init(certificatesPEM: String, privateKeyPEM: String, isOld: Bool = false) {
    self.certificatesPEM = certificatesPEM
    self.privateKeyPEM = privateKeyPEM
    self.isOld = isOld
  }

  func makeHandler() throws -> NIOSSLServerHandler {
    let chain = try NIOSSLCertificate.fromPEMBytes(Array(certificatesPEM.utf8)).map {
      NIOSSLCertificateSource.certificate($0)
    }
    let key = try NIOSSLPrivateKey(bytes: Array(privateKeyPEM.utf8), format: .pem)
    var configuration = TLSConfiguration.makeServerConfiguration(
      certificateChain: chain, privateKey: .privateKey(key))
    if isOld {
      configuration.minimumTLSVersion = .tlsv1
      configuration.maximumTLSVersion = .tlsv11
    }
    return NIOSSLServerHandler(context: try NIOSSLContext(configuration: configuration))
  }
}
