import Logging

/// An OpenSMTPD of one's own on a loopback port that takes mail for its mailboxes from everybody, in clear text.
///
/// Its package is unpacked, not installed (``UnpackedRoot``). Debian 12's OpenSMTPD 6.8 cannot do TLS with that release's
/// OpenSSL 3 (OpenSMTPD issue 1171), and offers logins under TLS only; so there is neither. Root only.
public final class PrivateOpenSMTPD: Sendable {
  /// How to run it.
  public struct Options: Sendable {
    /// Names its folder and log.
    public var name = "opensmtpd"
    /// The biggest message, in octets; announced with SIZE (RFC 1870).
    public var maximumMessageSize = 50 << 20
    /// How long a start may take.
    public var startTimeout = Duration.seconds(30)

    /// Messages up to 50 MiB.
    public init() {}
  }

  /// The address it listens on.
  public let host = "127.0.0.1"
  /// The port of SMTP.
  public let port: Int
  /// Where its output goes.
  public let logPath: String
  private let root: UnpackedRoot
  private let server: ManagedServer

  private init(port: Int, root: UnpackedRoot, logPath: String, server: ManagedServer) {
    self.port = port
    self.root = root
    self.logPath = logPath
    self.server = server
  }

  /// Starts OpenSMTPD in a data directory and waits until it answers. Mail to others than these mailboxes of one domain
  /// is refused.
  ///
  /// Throws as ``PrivateExim/start(in:certificate:accounts:options:logger:)`` does.
  public static func start(
    in data: DataDirectory, domain: String = "sandbox.test", mailboxes: [String], options: Options = Options(),
    logger: Logger = .silent
  ) async throws -> PrivateOpenSMTPD {
    // Its processes lock themselves in there; its queue has a user of its own.
    let empty = "/var/lib/opensmtpd/empty"
    let root = try await UnpackedRoot.make(
      in: data, name: options.name, package: "opensmtpd",
      programs: ["/usr/sbin/smtpd", "/usr/sbin/smtpctl", "/usr/libexec/opensmtpd/mail.maildir"],
      users: [
        .init(name: "opensmtpd", id: data.user.userID, home: empty), .init(name: "opensmtpq", id: 65_533, home: empty),
      ])
    for folder in ["/var/spool", "/var/lib", "/var/lib/opensmtpd", empty] {
      try Files.ensureDirectory(root.path + folder, mode: 0o755)
    }
    try Files.ensureDirectory(root.path + "/var/spool/smtpd", mode: 0o711)
    for mailbox in mailboxes { try AccountName.check(mailbox) }
    return try await LoopbackPorts.retrying { _ in
      let port = try LoopbackPorts.free(1, host: "127.0.0.1")[0]
      let mark = "\(data.runtimePath.split(separator: "-").last ?? "")-\(options.name)"
      try Files.write(
        """
        table mailboxes { \(mailboxes.map { "\"\($0)\" = \"\(UnpackedRoot.mailUser)\"" }.joined(separator: ", ")) }
        smtp max-message-size "\(options.maximumMessageSize)"
        listen on 127.0.0.1 port \(port) hostname "\(mark).\(domain)"
        action "deliver" maildir "/mail/%{rcpt.domain}/%{rcpt.user}/Maildir" virtual <mailboxes>
        match from any for domain "\(domain)" action "deliver"

        """, to: root.path + "/etc/smtpd.conf", mode: 0o644)
      let logPath = data.logPath(options.name)
      let server = ManagedServer(name: options.name, logPath: logPath, policy: .never, logger: logger) {
        let offset = Files.status(logPath)?.size ?? 0
        // One that was killed left it, and the next would take it for a running one.
        Files.remove(root.path + "/run/smtpd.sock")
        let child = try await ChildProcess.start(
          ChildProcess.Launch(
            name: options.name, program: root.chroot,
            arguments: [root.path, "/usr/sbin/smtpd", "-d", "-f", "/etc/smtpd.conf"], workingDirectory: root.path,
            isGuarded: true),
          in: data)
        try await ManagedServer.waitUntilReady(
          child, within: options.startTimeout, logPath: logPath, logOffset: offset
        ) { Probe.greeting(host: "127.0.0.1", port: port)?.contains(mark) == true }
        return child
      }
      try await server.start()
      return PrivateOpenSMTPD(port: port, root: root, logPath: logPath, server: server)
    }
  }

  /// What was delivered to a mailbox: the octets of each message as OpenSMTPD wrote them, lines ended by LF.
  public func messages(of address: String) -> [[UInt8]] { root.messages(of: address) }

  /// Ends it.
  public func stop() async { await server.stop() }
}
