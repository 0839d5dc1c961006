import Logging

/// An Exim of one's own: submission with STARTTLS and submission over TLS on loopback ports, accounts with passwords that
/// receive and send.
///
/// Its package is unpacked, not installed (``UnpackedRoot``). Mail to accounts is delivered into Maildir, mail to anybody
/// else is refused. Root only.
public final class PrivateExim: Sendable {
  /// How to run it.
  public struct Options: Sendable {
    /// Names its folder and log.
    public var name = "exim"
    /// The biggest message, in octets; announced with SIZE (RFC 1870).
    public var maximumMessageSize = 50 << 20
    /// How long a start may take.
    public var startTimeout = Duration.seconds(30)
    /// Further settings of the main section.
    public var settings = ""

    /// Messages up to 50 MiB.
    public init() {}
  }

  /// An account: its address is the user name.
  public struct Account: Hashable, Sendable {
    /// The address.
    public var address: String
    /// Any text without line breaks.
    public var password: String

    /// Describes an account.
    public init(_ address: String, password: String) {
      self.address = address
      self.password = password
    }
  }

  /// The address it listens on.
  public let host = "127.0.0.1"
  /// The port of submission with STARTTLS (RFC 6409).
  public let submissionPort: Int
  /// The port of submission over TLS (RFC 8314 section 3.3).
  public let submissionsPort: Int
  /// Where its output goes.
  public let logPath: String
  private let root: UnpackedRoot
  private let server: ManagedServer

  private init(ports: [Int], root: UnpackedRoot, logPath: String, server: ManagedServer) {
    (submissionPort, submissionsPort) = (ports[0], ports[1])
    self.root = root
    self.logPath = logPath
    self.server = server
  }

  /// Starts Exim in a data directory and waits until it answers.
  ///
  /// Throws ``PrivateServerError/needsRoot(server:reason:)`` and, where the package is not unpacked,
  /// ``PrivateServerError/missingProgram(name:looked:install:)``.
  public static func start(
    in data: DataDirectory, certificate: TestAuthority.Leaf, accounts: [Account], options: Options = Options(),
    logger: Logger = .silent
  ) async throws -> PrivateExim {
    let root = try await UnpackedRoot.make(
      in: data, name: options.name, package: "exim4-daemon-light", programs: ["/usr/sbin/exim4"],
      users: [.init(name: "Debian-exim", id: data.user.userID)])
    for folder in ["/etc/exim4", "/var/spool"] { try Files.ensureDirectory(root.path + folder, mode: 0o755) }
    try Files.ensureDirectory(root.path + "/var/spool/exim", mode: 0o750, owner: root.user)
    try Files.write(certificate.certificatePEM, to: root.path + "/etc/cert.pem", owner: root.user)
    try Files.write(certificate.keyPEM, to: root.path + "/etc/key.pem", owner: root.user)
    for account in accounts { try AccountName.check(account.address) }
    let mailboxes = accounts.map(\.address).map { address in
      "\(address): \(address.split(separator: "@").reversed().joined(separator: "/"))\n"
    }
    try Files.write(mailboxes.joined(), to: root.path + "/etc/mailboxes", mode: 0o644)
    try Files.write(
      accounts.map { "\($0.address): \($0.password)\n" }.joined(), to: root.path + "/etc/passwords",
      owner: root.user)
    return try await LoopbackPorts.retrying { _ in
      let ports = try LoopbackPorts.free(2, host: "127.0.0.1")
      let mark = "\(data.runtimePath.split(separator: "-").last ?? "")-\(options.name)"
      // Where it was built to look, and root's: another file, or another's, would cost it its rights.
      try Files.write(
        configuration(options, ports: ports, mark: mark), to: root.path + "/etc/exim4/exim4.conf", mode: 0o644)
      let logPath = data.logPath(options.name)
      let server = ManagedServer(name: options.name, logPath: logPath, policy: .never, logger: logger) {
        let offset = Files.status(logPath)?.size ?? 0
        let child = try await ChildProcess.start(
          ChildProcess.Launch(
            name: options.name, program: root.chroot, arguments: [root.path, "/usr/sbin/exim4", "-bdf", "-q1m"],
            workingDirectory: root.path, isGuarded: true),
          in: data)
        try await ManagedServer.waitUntilReady(
          child, within: options.startTimeout, logPath: logPath, logOffset: offset
        ) { Probe.greeting(host: "127.0.0.1", port: ports[0])?.contains(mark) == true }
        return child
      }
      try await server.start()
      return PrivateExim(ports: ports, root: root, logPath: logPath, server: server)
    }
  }

  /// What was delivered to an account: the octets of each message as Exim wrote them, lines ended by LF.
  public func messages(of address: String) -> [[UInt8]] { root.messages(of: address) }

  /// Ends it.
  public func stop() async { await server.stop() }

  private static func configuration(_ options: Options, ports: [Int], mark: String) -> String {
    """
    primary_hostname = mail.sandbox.test
    smtp_banner = $primary_hostname ESMTP Exim (\(mark))
    exim_user = Debian-exim
    exim_group = Debian-exim
    spool_directory = /var/spool/exim
    log_file_path = /var/spool/exim/log/%slog
    keep_environment =
    local_interfaces = 127.0.0.1
    daemon_smtp_ports = \(ports[0]) : \(ports[1])
    tls_on_connect_ports = \(ports[1])
    tls_advertise_hosts = *
    tls_certificate = /etc/cert.pem
    tls_privatekey = /etc/key.pem
    auth_advertise_hosts = ${if eq{$tls_in_cipher}{}{}{*}}
    message_size_limit = \(options.maximumMessageSize)
    smtputf8_advertise_hosts = *
    dsn_advertise_hosts = *
    # Nothing outside this machine is asked.
    host_lookup =
    rfc1413_hosts =
    dns_again_means_nonexist = *
    smtp_accept_max = 200
    # Every message is delivered when it comes, however many one connection brings.
    smtp_accept_queue_per_connection = 0
    acl_smtp_rcpt = rcpt
    acl_smtp_data = data
    \(options.settings)
    begin acl
    rcpt:
      deny
        message = 5.7.1 log in first
        !authenticated = *
      require
        message = 5.1.1 no such mailbox
        verify = recipient
      accept
    data:
      accept
    begin routers
    mailbox:
      driver = accept
      # What comes out of a file may be a path; what a client said may not.
      address_data = ${lookup{$local_part@$domain}lsearch{/etc/mailboxes}{$value}{}}
      condition = ${lookup{$local_part@$domain}lsearch{/etc/mailboxes}{yes}{no}}
      transport = maildir
    begin transports
    maildir:
      driver = appendfile
      maildir_format
      directory = /mail/$address_data/Maildir
      create_directory
      user = Debian-exim
      group = Debian-exim
    begin authenticators
    plain:
      driver = plaintext
      public_name = PLAIN
      server_prompts = :
      server_condition = ${if eq{$auth3}{${lookup{$auth2}lsearch{/etc/passwords}{$value}fail}}{yes}{no}}
      server_set_id = $auth2
    login:
      driver = plaintext
      public_name = LOGIN
      server_prompts = Username:: : Password::
      server_condition = ${if eq{$auth2}{${lookup{$auth1}lsearch{/etc/passwords}{$value}fail}}{yes}{no}}
      server_set_id = $auth1

    """
  }
}
