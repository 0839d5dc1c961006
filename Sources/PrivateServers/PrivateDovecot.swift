import Logging
import Subprocess

/// A Dovecot of one's own: POP3 with STLS and POP3 over TLS on loopback ports, users and mail in a ``DataDirectory``.
///
/// All of it runs as one unprivileged user, so it needs no root. On the same address, Dovecot takes plain passwords
/// even where they are forbidden, as nobody can listen in; to see a refusal, let it listen on `127.0.0.2` (Linux),
/// where clients come from `127.0.0.1`.
public final class PrivateDovecot: Sendable {
  /// How mail is stored.
  public enum Store: String, Hashable, Sendable {
    /// One file per message.
    case maildir
    /// One file per mailbox.
    case mbox
  }

  /// How tickets are taken.
  public struct Kerberos: Hashable, Sendable {
    /// The `krb5.conf`.
    public var configurationPath: String
    /// The file with the server's keys.
    public var keytabPath: String
    /// The server's host name in Kerberos.
    public var hostName: String
    /// Who may log in as each user, beside the user.
    public var trustedPrincipal: String

    /// Describes a realm.
    public init(configurationPath: String, keytabPath: String, hostName: String, trustedPrincipal: String) {
      self.configurationPath = configurationPath
      self.keytabPath = keytabPath
      self.hostName = hostName
      self.trustedPrincipal = trustedPrincipal
    }
  }

  /// How to run it.
  public struct Options: Sendable {
    /// Names its folder, sockets and log.
    public var name = "dovecot"
    /// The loopback address to listen on.
    public var host = "127.0.0.1"
    /// The port for POP3; `nil`: that of the last run if it is free, else any free one.
    public var pop3Port: Int?
    /// The port for POP3 over TLS, likewise.
    public var pop3sPort: Int?
    /// How mail is stored.
    public var store = Store.maildir
    /// Whether passwords are taken without TLS.
    public var allowsPlaintext = true
    /// Networks trusted like the same host, such as `127.0.0.0/8`.
    public var trustedNetworks: [String] = []
    /// The SASL mechanisms offered.
    public var mechanisms = ["plain", "login", "cram-md5", "scram-sha-256"]
    /// Accounts that may log in as anybody, with their passwords: by authorization identity, or as `user*master`.
    public var masters: [String: String] = [:]
    /// Where a token is asked about with a GET, the token appended; `nil`: no tokens are taken. The answer is JSON with
    /// `active` and `username`. The mechanisms xoauth2 and oauthbearer have to be listed too.
    public var introspectionURL: String?
    /// A realm whose tickets are taken; the mechanism gssapi has to be listed too.
    public var kerberos: Kerberos?
    /// How long a refused password is answered late, whole seconds.
    public var failureDelaySeconds = 0
    /// The most sessions of a user from one address.
    public var maximumSessionsPerUser = 100
    /// The most sessions at once.
    public var maximumSessions = 500
    /// What happens when it ends by itself.
    public var restart = RestartPolicy.never
    /// How long a start may take.
    public var startTimeout = Duration.seconds(30)
    /// Further configuration lines.
    public var settings = ""

    /// Maildir on 127.0.0.1, passwords also without TLS, nothing is restarted.
    public init() {}
  }

  /// The address it listens on.
  public var host: String { options.host }
  /// The port of POP3 with STLS.
  public let pop3Port: Int
  /// The port of POP3 over TLS.
  public let pop3sPort: Int
  /// Where its output goes.
  public let logPath: String
  /// The socket at which other servers check passwords.
  public let authSocketPath: String
  let mailPath: String
  let data: DataDirectory
  let options: Options
  /// The folder of one file per user, named by the address.
  let usersPath: String
  private let server: ManagedServer

  private init(
    data: DataDirectory, options: Options, ports: [Int], directory: String, server: ManagedServer
  ) throws {
    self.data = data
    self.options = options
    self.server = server
    pop3Port = ports[0]
    pop3sPort = ports[1]
    logPath = data.logPath(options.name)
    mailPath = directory + "/mail"
    usersPath = directory + "/users"
    authSocketPath = "\(data.runtimePath)/\(options.name)/auth-client"
    try Files.ensureDirectory(mailPath, mode: 0o700, owner: data.user)
    try Files.ensureDirectory(usersPath, mode: 0o700, owner: data.user)
  }

  /// Starts Dovecot in a data directory and waits until both ports answer.
  ///
  /// Users and mail of an earlier run are there again.
  public static func start(
    in data: DataDirectory, certificate: TestAuthority.Leaf, options: Options = Options(), logger: Logger = .silent
  ) async throws -> PrivateDovecot {
    let program = try Programs.find("dovecot", variable: "POSTRIDER_DOVECOT_BIN", package: "dovecot-pop3d")
    let directory = try data.directory(for: options.name)
    let remembered = (Files.read(directory + "/ports") ?? "").split(separator: " ").compactMap { Int($0) }
    return try await LoopbackPorts.retrying { attempt in
      let preferred = zip([options.pop3Port, options.pop3sPort], remembered + [0, 0]).map { fixed, last in
        fixed ?? (attempt == 0 ? last : 0)
      }
      let ports = try LoopbackPorts.free(2, host: options.host, preferred: preferred)
      for (fixed, port) in zip([options.pop3Port, options.pop3sPort], ports) where fixed != nil && fixed != port {
        throw PrivateServerError.notStarted(
          server: options.name, reason: "port \(fixed ?? 0) of \(options.host) is taken", log: [])
      }
      let server = try launcher(
        data: data, options: options, ports: ports, certificate: certificate, program: program, logger: logger)
      let dovecot = try PrivateDovecot(
        data: data, options: options, ports: ports, directory: directory, server: server)
      try await server.start()
      try Files.write("\(ports[0]) \(ports[1])", to: directory + "/ports")
      return dovecot
    }
  }

  private static func launcher(
    data: DataDirectory, options: Options, ports: [Int], certificate: TestAuthority.Leaf, program: String,
    logger: Logger
  ) throws -> ManagedServer {
    let runtime = try data.socketDirectory(for: options.name, mode: 0o755)
    let configuration = DovecotConfiguration(data: data, options: options, ports: ports, certificate: certificate)
    let file = "\(try data.directory(for: options.name))/dovecot.conf"
    try Files.write(configuration.text, to: file, owner: data.user)
    for (name, text) in configuration.extraFiles {
      try Files.write(text, to: "\(try data.directory(for: options.name))/\(name)", owner: data.user)
    }
    let logPath = data.logPath(options.name)
    return ManagedServer(name: options.name, logPath: logPath, policy: options.restart, logger: logger) {
      let offset = Files.status(logPath)?.size ?? 0
      // Only this supervisor starts it here, so one that is left names a process that ended, or another program.
      Files.remove(runtime + "/master.pid")
      let child = try await ChildProcess.start(
        ChildProcess.Launch(
          name: options.name, program: program, arguments: ["-F", "-c", file], user: data.user, isGuarded: true),
        in: data)
      try await ManagedServer.waitUntilReady(
        child, within: options.startTimeout, logPath: logPath, logOffset: offset
      ) { Probe.greeting(host: options.host, port: ports[0])?.contains(configuration.greetingMark) == true }
      return child
    }
  }

  /// Starts it again after ``stop()`` or ``kill9()``, on the same ports.
  public func start() async throws { try await server.start() }

  /// Ends it; sessions are closed.
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
