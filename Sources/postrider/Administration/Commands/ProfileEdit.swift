import ArgumentParser
import FoundationEssentials
import PostriderCore

/// Turns something on or off; neither leaves it as it is.
struct ActivationOptions: ParsableArguments {
  @Flag(help: "Turn it on.") var activate = false
  @Flag(help: "Turn it off: running sessions end by themselves, no new one begins.") var deactivate = false

  func validate() throws {
    if activate && deactivate { throw ValidationError("Give either --activate or --deactivate, not both.") }
  }

  /// `nil` to leave it.
  var isActive: Bool? { activate ? true : deactivate ? false : nil }
}

/// `postrider profile edit`
struct ProfileEdit: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "edit", abstract: "Change a server profile while it works.",
    discussion: """
      What is not named stays. A lower limit ends no session and stops new ones; a higher one counts at once. A quota \
      counts from the next session of each mailbox. Another host, port, protection or login makes its mailboxes stand \
      still until they are tested again; the command says how many there are and asks first.
      Example: postrider profile edit "Example mail" --max-connections 20 --interval 10
      Example: postrider profile edit "Example mail" --messages-per-minute 30 --all-messages-per-day 5000
      Example: postrider profile edit "Example mail" --incoming-host pop2.example.com
      Example: postrider profile edit "Shared" --user-name sync2 --new-password --yes
      """)

  @Argument(help: "The id or name of a profile.") var profile: String

  @Option(help: ArgumentHelp("Another name, 1 to 100 characters, unique.", valueName: "name")) var name: String?

  @Option(help: ArgumentHelp("Free text, at most 2,000 characters.", valueName: "text")) var description: String?

  @Flag(name: .customLong("default"), help: "New mailboxes pick this profile, and no longer another one.")
  var isDefault = false

  @OptionGroup(title: "Servers and logins") var servers: ProfileServerOptions

  @Flag(name: .customLong("new-password"), help: "Give the profile's own account another password; it is asked for.")
  var hasNewPassword = false

  @OptionGroup(title: "Password of the profile's own account (also POSTRIDER_PROFILE_PASSWORD)")
  var password: PasswordOptions

  @Option(
    help: ArgumentHelp(
      "Connections at once, 1 to 300.",
      discussion: "For each mailbox, or for all of them where one account opens their sessions.", valueName: "count"))
  var maxConnections: Int?

  @Option(
    help: ArgumentHelp(
      "Minutes from one poll of a mailbox to the next, 0 to 1440.", discussion: "0: the organization's default.",
      valueName: "minutes"))
  var interval: Int?

  @Option(
    help: ArgumentHelp("Its share of the workers relative to other profiles, 1 to 100.", valueName: "number"))
  var weight: Int?

  @Option(
    help: ArgumentHelp("Seconds for a connection and for each answer, 1 to 100.", valueName: "seconds"))
  var timeout: Int?

  @Option(
    help: ArgumentHelp(
      "Logins at one of its servers that may fail within 10 minutes, 1 to 1000; then they wait.", valueName: "count"))
  var maxFailedLogins: Int?

  @Option(
    help: ArgumentHelp(
      "Certificates (PEM) to trust instead of the system's.", discussion: "Example: --ca-file /etc/ssl/example.pem",
      valueName: "file"), completion: .file())
  var caFile: String?

  @Flag(help: "Trust the system's certificates again.") var systemCertificates = false

  @Option(
    help: ArgumentHelp(
      "Mail received earlier is not imported: a day or a moment, UTC.",
      discussion: "Counts for mailboxes that come to the profile afterwards. Example: --process-email-from 2026-01-31",
      valueName: "date"))
  var processEmailFrom: DateArgument?

  @Flag(help: "Import all mail, however old.") var allMail = false
  @OptionGroup(title: "What each mailbox may send") var quota: QuotaOptions
  @OptionGroup(title: "What all mailboxes together may send") var sharedQuota: SharedQuotaOptions
  @Option(
    help: ArgumentHelp(
      "Tell this address by mail when more than half of its mailboxes fail within an hour; '' for nobody.",
      discussion: "The mail is sent from the mailbox that `alert mail` names.", valueName: "address"))
  var failureNoticeTo: String?

  @Option(help: ArgumentHelp("Give it to this user, by id, address or name.", valueName: "user")) var owner: String?

  @OptionGroup var activation: ActivationOptions

  @Option(
    help: ArgumentHelp(
      "Refuse the change when somebody else changed the profile since this version.",
      discussion: "The version is in `profile show --json`.", valueName: "number"))
  var ifVersion: Int64?

  @Flag(help: "Do not ask whether mailboxes may stand still until tested again.") var yes = false

  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    func check(_ value: Int?, _ range: ClosedRange<Int>, _ option: String) throws {
      if let value, !range.contains(value) {
        throw ValidationError("\(option) must be from \(range.lowerBound) to \(range.upperBound).")
      }
    }
    try check(maxConnections, 1...300, "--max-connections")
    try check(interval, 0...1_440, "--interval")
    try check(weight, 1...100, "--weight")
    try check(timeout, 1...100, "--timeout")
    try check(maxFailedLogins, 1...1_000, "--max-failed-logins")
    if caFile != nil && systemCertificates {
      throw ValidationError("Give either --ca-file or --system-certificates, not both.")
    }
    if processEmailFrom != nil && allMail {
      throw ValidationError("Give either --process-email-from or --all-mail, not both.")
    }
    if changesNothing { throw ValidationError("Nothing is to be changed: give an option, such as --max-connections.") }
  }

  private var changesNothing: Bool {
    let numbers = [maxConnections, interval, weight, timeout, maxFailedLogins]
    let texts = [name, description, caFile, failureNoticeTo, owner]
    let flags = [isDefault, systemCertificates, allMail, hasNewPassword]
    return numbers.allSatisfy { $0 == nil } && texts.allSatisfy { $0 == nil } && !flags.contains(true)
      && processEmailFrom == nil && activation.isActive == nil && servers.isEmpty && quota.isEmpty
      && sharedQuota.isEmpty
  }

  func execute(_ session: Session) async throws {
    let found = try await Selection.profile(profile, session.api)
    var request = try request(found)
    if let owner { request.ownerID = try await Selection.user(owner, session.api).id }
    let changed: ServerProfile
    do {
      changed = try await session.api.patch("/server-profiles/\(found.id)", request)
    } catch ClientError.refused(let problem, _) where problem.code == "needs-new-tests" && !yes {
      let words = Terminal.safe(problem.detail ?? "its mailboxes have to be tested again")
      guard Terminal.canAsk else { throw ClientError.usage("\(words); say --yes to change it nevertheless") }
      Terminal.warn(words)
      guard Terminal.confirm("Change it nevertheless?") else { throw ClientError.failed("nothing was changed") }
      request.confirmsNewTests = true
      changed = try await session.api.patch("/server-profiles/\(found.id)", request)
    }
    if session.isJSON { return try session.printJSON(changed) }
    try session.print("Changed the profile \(Terminal.safe(changed.name)).\n")
    try session.print(ProfileShow.details(changed).rendered())
  }

  /// The request; reads the password and the certificates.
  func request(_ present: ServerProfile) throws -> ProfileChangeRequest {
    let source = servers.credentials ?? present.incoming.credentials
    let isSame = servers.outgoingCredentials == nil && present.useSameSettingsForOutgoing
    let outgoingSource = isSame ? source : servers.outgoingCredentials ?? present.outgoing.credentials
    let needsPassword =
      hasNewPassword || servers.credentials == .profile && present.incoming.credentials != .profile
      || servers.outgoingCredentials == .profile && present.outgoing.credentials != .profile
    let secret =
      needsPassword
      ? try password.read(
        variable: "POSTRIDER_PROFILE_PASSWORD",
        question: "Password of \(Terminal.safe(servers.userName ?? "the profile's account")) (empty for none): ")
      : nil
    func server(
      _ host: String?, _ port: Int?, _ tls: TLSMode?, _ source: CredentialSource, given: CredentialSource?,
      _ mechanism: AuthenticationMechanism?, loginAs: String? = nil
    ) -> ServerRequest? {
      let usesAccount = source == .profile
      let request = ServerRequest(
        host: host, port: port, tls: tls, credentials: given, mechanism: mechanism,
        userName: usesAccount ? servers.userName : nil,
        password: usesAccount ? secret.map { SentSecret($0) } : nil, loginAs: loginAs)
      let isNothing =
        [host, request.userName, loginAs].allSatisfy { $0 == nil } && port == nil && tls == nil && given == nil
        && mechanism == nil && request.password == nil
      return isNothing ? nil : request
    }
    var clears: [ProfileChange.Clearable] = []
    if allMail { clears.append(.processEmailFrom) }
    if systemCertificates { clears.append(.caCertificatesPEM) }
    return ProfileChangeRequest(
      name: name, description: description, isDefault: isDefault ? true : nil,
      incoming: server(
        servers.incomingHost, servers.incomingPort, servers.incomingTLS, source, given: servers.credentials,
        servers.mechanism, loginAs: servers.loginAs),
      outgoing: server(
        servers.outgoingHost, servers.outgoingPort, servers.outgoingTLS, isSame ? .mailbox : outgoingSource,
        given: servers.outgoingCredentials, servers.outgoingMechanism),
      useSameSettingsForOutgoing: servers.outgoingCredentials == nil ? nil : false,
      processEmailFrom: processEmailFrom?.date, maximumConcurrentConnections: maxConnections,
      minimumPollingIntervalMinutes: interval, weight: weight, connectionTimeoutSeconds: timeout,
      maximumFailedLogins: maxFailedLogins, caCertificatesPEM: try caFile.map { try CertificateFile.read($0) },
      isActive: activation.isActive,
      sendQuota: quota.isEmpty ? nil : quota.applied(to: present.sendQuota ?? present.type.sendQuota),
      sharedSendQuota: sharedQuota.isEmpty ? nil : sharedQuota.applied(to: present.sharedSendQuota ?? .none),
      failureNoticeTo: failureNoticeTo, clears: clears.isEmpty ? nil : clears, confirmsNewTests: yes ? true : nil,
      version: ifVersion)
  }
}
