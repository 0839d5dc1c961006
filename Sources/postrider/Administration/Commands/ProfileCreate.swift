import ArgumentParser
import FoundationEssentials
import PostriderCore

/// `postrider profile create`
struct ProfileCreate: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "create", abstract: "Create a server profile.",
    discussion: """
      Gmail and Microsoft 365 fill in their own servers; a pop3-smtp profile needs both hosts.
      Example: postrider profile create --name "Example mail" --type pop3-smtp \
      --incoming-host pop.example.com --outgoing-host smtp.example.com --interval 5 --default
      Example: postrider profile create --name "Shared" --incoming-host pop.example.com \
      --outgoing-host smtp.example.com --credentials profile --user-name sync --login-as '{mailbox}*{user}'
      """)

  @Option(
    help: ArgumentHelp(
      "The name, 1 to 100 characters, unique.", discussion: "Example: --name \"Example mail\"", valueName: "name"))
  var name: String

  @Option(help: ArgumentHelp("Free text, at most 2,000 characters.", valueName: "text"))
  var description: String?

  @Option(help: ArgumentHelp("The provider: gmail, pop3-smtp or microsoft365.", valueName: "type"))
  var type: ProfileType = .pop3SMTP

  @Flag(name: .customLong("default"), help: "New mailboxes pick this profile.")
  var isDefault = false

  @OptionGroup(title: "Servers and logins") var servers: ProfileServerOptions

  @OptionGroup(title: "Password of the profile's own account (also POSTRIDER_PROFILE_PASSWORD)")
  var password: PasswordOptions

  @Option(
    help: ArgumentHelp(
      "Minutes from one poll of a mailbox to the next, 0 to 1440.",
      discussion: "Default: 0, the organization's default. Example: --interval 5", valueName: "minutes"))
  var interval: Int?

  @Option(
    help: ArgumentHelp(
      "Connections at once, 1 to 300.", discussion: "Default: 10. Example: --max-connections 50", valueName: "count"))
  var maxConnections: Int?

  @Option(
    help: ArgumentHelp(
      "Seconds for a connection and for each answer, 1 to 100.", discussion: "Default: 30.", valueName: "seconds"))
  var timeout: Int?

  @Option(
    help: ArgumentHelp(
      "Logins at one of its servers that may fail within 10 minutes, 1 to 1000; then they wait.",
      discussion: "Default: 10. Providers lock out who fails more often.", valueName: "count"))
  var maxFailedLogins: Int?

  @Option(
    help: ArgumentHelp(
      "Certificates (PEM) to trust instead of the system's.", discussion: "Example: --ca-file /etc/ssl/example.pem",
      valueName: "file"), completion: .file())
  var caFile: String?

  @Option(
    help: ArgumentHelp(
      "Mail received earlier is not imported: a day or a moment, UTC.",
      discussion: "Default: all mail. Example: --process-email-from 2026-01-31", valueName: "date"))
  var processEmailFrom: DateArgument?

  @OptionGroup(title: "What each mailbox may send (default: the provider's figures)") var quota: QuotaOptions
  @OptionGroup(title: "What all mailboxes together may send") var sharedQuota: SharedQuotaOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    if servers.userName != nil && servers.credentials != .profile && servers.outgoingCredentials != .profile {
      throw ValidationError("--user-name belongs to --credentials profile.")
    }
    if servers.loginAs != nil && servers.credentials != .profile {
      throw ValidationError("--login-as belongs to --credentials profile.")
    }
  }

  func execute(_ session: Session) async throws {
    let created: CreatedProfile = try await session.api.post("/server-profiles", try request())
    if session.isJSON { return try session.printJSON(created) }
    try session.print("Created the profile \(Terminal.safe(created.profile.name)).\n")
    try session.print(ProfileShow.details(created.profile).rendered())
    for warning in created.warnings { Terminal.warn("Warning: \(Self.words(warning))") }
  }

  /// The request; reads the password and the certificates.
  func request() throws -> ProfileRequest {
    let (credentials, outgoingCredentials) = (servers.credentials, servers.outgoingCredentials)
    let (mechanism, userName) = (servers.mechanism, servers.userName)
    let usesOwnAccount = credentials == .profile || outgoingCredentials == .profile
    let secret =
      usesOwnAccount
      ? try password.read(
        variable: "POSTRIDER_PROFILE_PASSWORD",
        question: "Password of \(Terminal.safe(userName ?? "the profile's account")) (empty for none): ") : nil
    func server(
      _ host: String?, _ port: Int?, _ tls: TLSMode?, _ source: CredentialSource?,
      _ mechanism: AuthenticationMechanism?, loginAs: String? = nil
    ) -> ServerRequest {
      ServerRequest(
        host: host, port: port, tls: tls, credentials: source, mechanism: mechanism,
        userName: source == .profile ? userName : nil,
        password: source == .profile ? secret.map { SentSecret($0) } : nil, loginAs: loginAs)
    }
    let isSame = outgoingCredentials == nil || outgoingCredentials == credentials
    return ProfileRequest(
      name: name, description: description, type: type, isDefault: isDefault ? true : nil,
      incoming: server(
        servers.incomingHost, servers.incomingPort, servers.incomingTLS, credentials, mechanism,
        loginAs: servers.loginAs),
      outgoing: server(
        servers.outgoingHost, servers.outgoingPort, servers.outgoingTLS, isSame ? nil : outgoingCredentials,
        servers.outgoingMechanism ?? mechanism),
      useSameSettingsForOutgoing: isSame ? nil : false, processEmailFrom: processEmailFrom?.date,
      minimumPollingIntervalMinutes: interval, maximumConcurrentConnections: maxConnections,
      connectionTimeoutSeconds: timeout, maximumFailedLogins: maxFailedLogins,
      caCertificatesPEM: try caFile.map { try CertificateFile.read($0) },
      sendQuota: quota.isEmpty ? nil : quota.applied(to: type.sendQuota),
      sharedSendQuota: sharedQuota.isEmpty ? nil : sharedQuota.applied(to: .none))
  }

  private static func words(_ warning: String) -> String {
    switch warning {
    case "gmail.password": "Gmail takes passwords only from accounts that allow app passwords; OAuth is the safe way."
    case "ntlm.weak":
      "NTLM shows whoever listens enough to guess the password; use it only where the server takes nothing else."
    default: Terminal.safe(warning)
    }
  }
}
