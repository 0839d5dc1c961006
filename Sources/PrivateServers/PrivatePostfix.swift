import Logging
import Subprocess

#if canImport(Darwin)
  import Darwin
#elseif canImport(Musl)
  import Musl
#else
  import Glibc
#endif

/// A Postfix of one's own: submission with STARTTLS and submission over TLS on loopback ports.
///
/// Users log in with their ``PrivateDovecot`` passwords, over TLS only. Mail to the sandbox's own domain is delivered
/// into Dovecot's mailboxes; mail to any other domain is accepted and bounced (or thrown away), never relayed. Nothing
/// of `/etc/postfix` is read or written, and a system Postfix may run beside it.
///
/// Root only: Postfix changes between users by itself.
public final class PrivatePostfix: Sendable {
  /// What becomes of mail to domains outside the sandbox.
  public enum Outside: String, Hashable, Sendable {
    /// Accepted, then returned to its sender with a delivery status notification.
    case bounced
    /// Accepted and thrown away.
    case discarded
    /// Refused at RCPT.
    case refused
  }

  /// How to run it.
  public struct Options: Sendable {
    /// Names its folder and log.
    public var name = "postfix"
    /// The loopback address to listen on.
    public var host = "127.0.0.1"
    /// The port for submission with STARTTLS; `nil`: that of the last run if it is free, else any free one.
    public var submissionPort: Int?
    /// The port for submission over TLS, likewise.
    public var submissionsPort: Int?
    /// What becomes of mail to other domains.
    public var outside = Outside.bounced
    /// Whether the envelope sender has to be the address that logged in.
    public var checksSender = false
    /// The biggest message, in octets; announced with SIZE (RFC 1870).
    public var maximumMessageSize = 50 << 20
    /// What happens when it ends by itself.
    public var restart = RestartPolicy.never
    /// How long a start may take.
    public var startTimeout = Duration.seconds(30)
    /// Further settings of main.cf: name and value.
    public var settings: [String: String] = [:]

    /// On 127.0.0.1, outside mail is bounced, nothing is restarted.
    public init() {}
  }

  /// The address it listens on.
  public let host: String
  /// The port of submission with STARTTLS (RFC 6409).
  public let submissionPort: Int
  /// The port of submission over TLS (RFC 8314 section 3.3).
  public let submissionsPort: Int
  /// Where its output goes.
  public let logPath: String
  private let server: ManagedServer
  private let layout: PostfixLayout

  private init(options: Options, ports: [Int], layout: PostfixLayout, server: ManagedServer) {
    host = options.host
    submissionPort = ports[0]
    submissionsPort = ports[1]
    logPath = layout.logPath
    self.layout = layout
    self.server = server
  }

  /// Starts Postfix beside a running Dovecot, for one domain, and waits until it answers.
  ///
  /// Throws ``PrivateServerError/needsRoot(server:reason:)`` for everybody else.
  public static func start(
    in data: DataDirectory, dovecot: PrivateDovecot, domain: String, certificate: TestAuthority.Leaf,
    options: Options = Options(), logger: Logger = .silent
  ) async throws -> PrivatePostfix {
    guard geteuid() == 0 else {
      throw PrivateServerError.needsRoot(
        server: "Postfix", reason: "it changes between users by itself. Dovecot alone (receiving) needs no root")
    }
    guard dovecot.options.store == .maildir else {
      throw PrivateServerError.invalid("Postfix delivers into Maildir here; start Dovecot with that store")
    }
    let layout = try await PostfixLayout.make(in: data, options: options)
    let remembered = (Files.read(layout.folder + "/ports") ?? "").split(separator: " ").compactMap { Int($0) }
    return try await LoopbackPorts.retrying { attempt in
      let preferred = zip([options.submissionPort, options.submissionsPort], remembered + [0, 0]).map { fixed, last in
        fixed ?? (attempt == 0 ? last : 0)
      }
      let ports = try LoopbackPorts.free(2, host: options.host, preferred: preferred)
      for (fixed, port) in zip([options.submissionPort, options.submissionsPort], ports)
      where fixed != nil && fixed != port {
        throw PrivateServerError.notStarted(
          server: options.name, reason: "port \(fixed ?? 0) of \(options.host) is taken", log: [])
      }
      let configuration = PostfixConfiguration(
        data: data, dovecot: dovecot, domain: domain, certificate: certificate, options: options, ports: ports,
        layout: layout)
      try configuration.write()
      let postfix = PrivatePostfix(
        options: options, ports: ports, layout: layout,
        server: server(data: data, options: options, port: ports[0], layout: layout, logger: logger))
      try await postfix.setMailboxes(dovecot.addresses)
      try await layout.createQueue()
      do {
        try await postfix.server.start()
      } catch PrivateServerError.notStarted(let name, let reason, let log) {
        // Postfix's master ends without a word when a port was taken in the meantime.
        let taken = try LoopbackPorts.free(2, host: options.host, preferred: ports) != ports
        throw PrivateServerError.notStarted(
          server: name, reason: reason, log: taken ? log + [LoopbackPorts.takenMark] : log)
      }
      try Files.write("\(ports[0]) \(ports[1])", to: layout.folder + "/ports")
      return postfix
    }
  }

  private static func server(
    data: DataDirectory, options: Options, port: Int, layout: PostfixLayout, logger: Logger
  ) -> ManagedServer {
    ManagedServer(name: options.name, logPath: layout.logPath, policy: options.restart, logger: logger) {
      let offset = Files.status(layout.logPath)?.size ?? 0
      // The master itself, as `postfix start-fg` runs it, so that it is our child; -s keeps its output for the log.
      // SIGTERM is what `postfix stop` sends. All of Postfix works in the queue's folder.
      let child = try await ChildProcess.start(
        ChildProcess.Launch(
          name: options.name, program: layout.daemons + "/master", arguments: ["-c", layout.configuration, "-s"],
          workingDirectory: layout.folder + "/queue", isGuarded: true),
        in: data)
      try await ManagedServer.waitUntilReady(
        child, within: options.startTimeout, logPath: layout.logPath, logOffset: offset
      ) { Probe.greeting(host: options.host, port: port)?.contains(layout.greetingMark) == true }
      return child
    }
  }

  /// Sets the addresses that take mail; the running server takes notice at the next message.
  ///
  /// Others of the domain are refused with 550 5.1.1.
  public func setMailboxes(_ addresses: [String]) async throws {
    let lines = try addresses.map { address in
      let parts = address.split(separator: "@")
      guard parts.count == 2 else { throw PrivateServerError.invalid("\(address) is not an address") }
      return "\(address)\t\(parts[1])/\(parts[0])/Maildir/\n"
    }
    let map = layout.configuration + "/mailboxes"
    try Files.write(lines.joined(), to: map, mode: 0o644)
    try await Command.run(
      layout.commands + "/postmap", ["-c", layout.configuration, "\(layout.mapType):\(map)"])
  }

  /// Starts it again after ``stop()`` or ``kill9()``, on the same ports.
  public func start() async throws { try await server.start() }

  /// Ends it; the mail in its queue stays there.
  public func stop() async { await server.stop() }

  /// Stops and starts it, on the same ports.
  public func restart() async throws {
    await server.stop(finally: false)
    try await server.start()
  }

  /// Kills it and its sessions by SIGKILL. It stays ended until ``start()``.
  public func kill9() async { await server.kill9() }

  /// Freezes it and its sessions: connections are accepted by the system, and nothing answers.
  public func pause() async { await server.signalFamily(.suspend) }

  /// Ends ``pause()``.
  public func resume() async { await server.signalFamily(.resume) }

  /// The process id while it runs.
  public var processID: Int32? { get async { await server.processID } }

  /// The error after which it stays ended, should that happen; ends with ``stop()``.
  public var failures: AsyncStream<PrivateServerError> { server.failures }
}
