import FoundationEssentials

/// A checked profile with everything filled in, ready to be stored.
public struct ResolvedProfile: Sendable {
  /// The draft as given, for the fields that need no resolution.
  public var draft: ProfileDraft
  /// Receiving.
  public var incoming: ServerSettings
  /// Sending.
  public var outgoing: ServerSettings
  /// The password of the profile's own incoming account.
  public var incomingPassword: Secret?
  /// The password of the profile's own outgoing account.
  public var outgoingPassword: Secret?
  /// Things that are allowed but that people should know: `gmail.password`, `ntlm.weak`.
  public var warnings: [String]
}

/// What a profile must be like (features P3–P17).
public struct ProfileRules: Sendable {
  /// Whether the deployment allows connections without TLS.
  public var allowsNonTLSMail: Bool

  /// The rules of a deployment.
  public init(allowsNonTLSMail: Bool = false) { self.allowsNonTLSMail = allowsNonTLSMail }

  /// Fills in what was left out and checks everything; throws ``StoreError/invalid(_:)`` with every wrong field.
  public func resolve(_ draft: ProfileDraft) throws(StoreError) -> ResolvedProfile {
    var problems = FieldProblems()
    problems.check(draft.name, at: "/name", maximum: 100, minimum: 1)
    problems.check(draft.description ?? "", at: "/description", maximum: 2_000, allowsNewlines: true)
    problems.check(draft.minimumPollingIntervalMinutes ?? 0, at: "/minimumPollingIntervalMinutes", in: 0...1_440)
    problems.check(draft.maximumConcurrentConnections ?? 10, at: "/maximumConcurrentConnections", in: 1...300)
    problems.check(draft.connectionTimeoutSeconds ?? 30, at: "/connectionTimeoutSeconds", in: 1...100)
    problems.check(draft.maximumFailedLogins ?? 10, at: "/maximumFailedLogins", in: 1...1_000)
    draft.sendQuota?.check(at: "/sendQuota", &problems)
    draft.sharedSendQuota?.check(at: "/sharedSendQuota", &problems)
    if let pem = draft.caCertificatesPEM, !pem.contains("-----BEGIN CERTIFICATE-----") {
      problems.add("/caCertificatesPEM", "not-pem", "must hold certificates in PEM form")
    }
    let incomingDraft = draft.incoming ?? ServerDraft()
    var outgoingDraft = draft.outgoing ?? ServerDraft()
    if draft.useSameSettingsForOutgoing ?? true {
      outgoingDraft.credentials = incomingDraft.credentials
      outgoingDraft.userName = incomingDraft.userName
      outgoingDraft.password = incomingDraft.password
    }
    let incoming = resolve(incomingDraft, .incoming, of: draft.type, &problems)
    let outgoing = resolve(outgoingDraft, .outgoing, of: draft.type, &problems)
    try problems.throwIfAny()
    let usesPassword = [incoming, outgoing].contains { $0.credentials == .mailbox || $0.credentials == .profile }
    return ResolvedProfile(
      draft: draft, incoming: incoming, outgoing: outgoing, incomingPassword: incomingDraft.password,
      outgoingPassword: outgoingDraft.password,
      warnings: (draft.type == .gmail && usesPassword ? ["gmail.password"] : [])
        + ([incoming, outgoing].contains { $0.mechanism == .ntlm } ? ["ntlm.weak"] : []))
  }

  private func resolve(
    _ draft: ServerDraft, _ direction: Direction, of type: ProfileType, _ problems: inout FieldProblems
  ) -> ServerSettings {
    let at = "/\(direction.rawValue)"
    let preset = Preset.of(type, direction)
    let tls = draft.tls ?? preset.tls
    let credentials = draft.credentials ?? preset.credentials
    let host = draft.host ?? preset.host ?? ""
    if host.isEmpty {
      problems.add("\(at)/host", "required", "is required for profiles of type \(type.rawValue)")
    } else if !HostRules.isHost(host) {
      problems.add("\(at)/host", "not-a-host", "must be a host name such as mail.example.com")
    }
    let port = draft.port ?? (tls == preset.tls ? preset.port : Preset.defaultPort(direction, tls))
    problems.check(port, at: "\(at)/port", in: 1...65_535)
    if tls == .none && !allowsNonTLSMail {
      problems.add(
        "\(at)/tls", "not-allowed",
        "`none` is only allowed when the deployment property allowNonTLSMail is on; use `implicit` or `starttls`")
    }
    switch credentials {
    case .anonymous: problems.add("\(at)/credentials", "not-allowed", "anonymous is not a valid setting")
    case .integrated where direction == .incoming:
      problems.add("\(at)/credentials", "not-allowed", "integrated authentication works for outgoing (SMTP) only")
    default: break
    }
    if credentials == .profile {
      problems.check(draft.userName ?? "", at: "\(at)/userName", maximum: 250, minimum: 1)
      problems.check(draft.password?.revealed ?? "", at: "\(at)/password", maximum: 250)
    } else {
      if draft.userName != nil {
        problems.add("\(at)/userName", "not-allowed", "is only accepted with credentials `profile`")
      }
      if draft.password != nil {
        problems.add("\(at)/password", "not-allowed", "is only accepted with credentials `profile`")
      }
    }
    // Masters log in by a name made of two, which goes with a password in the clear and, at Dovecot, with nothing else.
    let isTemplate = draft.loginAs.flatMap { LoginTemplate($0) } != nil
    let mechanism = draft.mechanism ?? (isTemplate ? .plain : .auto)
    check(mechanism, with: credentials, at: at, &problems)
    return ServerSettings(
      host: host, port: port, tls: tls, credentials: credentials, mechanism: mechanism,
      userName: credentials == .profile ? draft.userName : nil, passwordSet: draft.password != nil,
      loginAs: loginAs(draft.loginAs, direction, credentials, mechanism, &problems))
  }

  /// What one kind of credentials can prove, and another cannot: a password is never sent where a token was meant.
  private func check(
    _ mechanism: AuthenticationMechanism, with credentials: CredentialSource, at: String,
    _ problems: inout FieldProblems
  ) {
    let allowed: [AuthenticationMechanism]
    switch credentials {
    case .oauth: allowed = [.auto, .oauthbearer, .xoauth2]
    case .integrated: allowed = [.auto, .gssapi]
    case .profile: allowed = AuthenticationMechanism.allCases.filter { $0 != .oauthbearer && $0 != .xoauth2 }
    // GSSAPI shows who the worker is, not who the mailbox's owner is.
    case .mailbox: allowed = [.auto, .plain, .login, .cramMD5, .scramSHA1, .scramSHA256, .ntlm]
    case .anonymous: return
    }
    if !allowed.contains(mechanism) {
      problems.add(
        "\(at)/mechanism", "not-allowed",
        "\(mechanism.rawValue) does not go with credentials `\(credentials.rawValue)`; use "
          + allowed.map(\.rawValue).joined(separator: ", "))
    }
  }

  private func loginAs(
    _ text: String?, _ direction: Direction, _ credentials: CredentialSource, _ mechanism: AuthenticationMechanism,
    _ problems: inout FieldProblems
  ) -> LoginAs? {
    guard let text else { return nil }
    let at = "/\(direction.rawValue)/loginAs"
    guard direction == .incoming, credentials == .profile else {
      problems.add(at, "not-allowed", "is only accepted for incoming with credentials `profile`")
      return nil
    }
    guard let loginAs = LoginAs(rawValue: text) else {
      problems.add(
        at, "not-a-template", "must be `authzid`, or a template such as {mailbox}*{user} with {mailbox} once")
      return nil
    }
    if loginAs == .authorizationIdentity, ![.auto, .plain, .gssapi].contains(mechanism) {
      problems.add(at, "not-allowed", "\(mechanism.rawValue) carries no `authzid`; use auto, plain or gssapi")
    }
    if case .template = loginAs, mechanism == .gssapi {
      problems.add(at, "not-allowed", "gssapi takes no login name that a template could change; use `authzid`")
    }
    return loginAs
  }

  /// What fills itself in (P3–P5, P11).
  public struct Preset: Hashable, Sendable {
    /// The provider's server; `nil` where there is no provider.
    public var host: String?
    /// Its port.
    public var port: Int
    /// How the connection is protected.
    public var tls: TLSMode
    /// Whose credentials are used.
    public var credentials: CredentialSource

    /// One direction of a provider.
    public static func of(_ type: ProfileType, _ direction: Direction) -> Preset {
      switch (type, direction) {
      case (.gmail, .incoming): Preset(host: "pop.gmail.com", port: 995, tls: .implicit, credentials: .oauth)
      case (.gmail, .outgoing): Preset(host: "smtp.gmail.com", port: 465, tls: .implicit, credentials: .oauth)
      case (.microsoft365, .incoming):
        Preset(host: "outlook.office365.com", port: 995, tls: .implicit, credentials: .oauth)
      case (.microsoft365, .outgoing):
        Preset(host: "smtp.office365.com", port: 587, tls: .starttls, credentials: .oauth)
      case (.pop3SMTP, let direction):
        Preset(host: nil, port: defaultPort(direction, .implicit), tls: .implicit, credentials: .mailbox)
      }
    }

    /// The port of a protocol by the way it is protected (RFC 8314, RFC 1939, RFC 6409).
    public static func defaultPort(_ direction: Direction, _ tls: TLSMode) -> Int {
      switch (direction, tls) {
      case (.incoming, .implicit): 995
      case (.incoming, _): 110
      case (.outgoing, .implicit): 465
      case (.outgoing, _): 587
      }
    }
  }
}
