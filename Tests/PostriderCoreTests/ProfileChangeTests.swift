import PostriderCore
import Testing

@Suite("Changes of profiles (features P2, M6)")
struct ProfileChangeTests {
  private static func profile(
    port: Int? = nil, tls: TLSMode = .implicit, credentials: CredentialSource = .mailbox, loginAs: String? = nil
  ) throws -> ServerProfile {
    let own = credentials == .profile
    let resolved = try ProfileRules(allowsNonTLSMail: true).resolve(
      ProfileDraft(
        name: "p", type: .pop3SMTP,
        incoming: ServerDraft(
          host: "pop.example.com", port: port, tls: tls, credentials: credentials, userName: own ? "sync" : nil,
          password: own ? Secret("s") : nil, loginAs: loginAs),
        outgoing: ServerDraft(host: "smtp.example.com")))
    return ServerProfile(
      id: ProfileID(1), organizationID: OrganizationID(1), name: "p", type: .pop3SMTP, incoming: resolved.incoming,
      outgoing: resolved.outgoing, createdAt: .init(timeIntervalSince1970: 0),
      updatedAt: .init(timeIntervalSince1970: 0))
  }

  private static func change(_ fill: (inout ProfileChange) -> Void) -> ProfileChange {
    var change = ProfileChange()
    fill(&change)
    return change
  }

  private func problems(_ change: ProfileChange, of profile: ServerProfile) -> [String] {
    do {
      _ = try ProfileRules().resolve(change, of: profile)
      return []
    } catch {
      guard case .invalid(let problems) = error else { return ["\(error)"] }
      return problems.map { "\($0.pointer) \($0.code)" }
    }
  }

  @Test(
    "limits, times, names and certificates change no login; host, port, TLS and authentication do, each direction's own"
  )
  func untested() throws {
    let profile = try Self.profile()
    let rules = ProfileRules()
    let harmless = Self.change {
      $0.name = "q"
      $0.description = "text"
      $0.weight = 7
      $0.maximumConcurrentConnections = 3
      $0.minimumPollingIntervalMinutes = 9
      $0.connectionTimeoutSeconds = 5
      $0.maximumFailedLogins = 50
      $0.processEmailFrom = .init(timeIntervalSince1970: 1)
      $0.caCertificatesPEM = "-----BEGIN CERTIFICATE-----\n"
      $0.isActive = false
      $0.isDefault = true
    }
    let result = try rules.resolve(harmless, of: profile)
    #expect(result.newlyUntested.isEmpty && result.passwords.isEmpty)
    #expect(result.profile.name == "q" && result.profile.description == "text" && result.profile.weight == 7)
    #expect(result.profile.maximumConcurrentConnections == 3 && result.profile.minimumPollingIntervalMinutes == 9)
    #expect(result.profile.connectionTimeoutSeconds == 5 && result.profile.maximumFailedLogins == 50)
    #expect(result.profile.processEmailFrom != nil && result.profile.caCertificatesPEM != nil)
    #expect(!result.profile.isActive && result.profile.isDefault)
    let cleared = try rules.resolve(
      Self.change { $0.clears = [.processEmailFrom, .caCertificatesPEM] }, of: result.profile)
    #expect(cleared.profile.processEmailFrom == nil && cleared.profile.caCertificatesPEM == nil)

    let cases: [(ServerChange, String)] = [
      (ServerChange(host: "pop2.example.com"), "host"), (ServerChange(port: 1_995), "port"),
      (ServerChange(tls: .starttls), "tls"), (ServerChange(mechanism: .plain), "mechanism"),
    ]
    for (server, what) in cases {
      let incoming = try rules.resolve(Self.change { $0.incoming = server }, of: profile)
      #expect(incoming.newlyUntested == [.incoming], "\(what)")
      let outgoing = try rules.resolve(Self.change { $0.outgoing = server }, of: profile)
      #expect(outgoing.newlyUntested == [.outgoing], "\(what)")
    }
    // What it is already changes nothing.
    let same = try rules.resolve(
      Self.change { $0.incoming = ServerChange(host: "pop.example.com", port: 995, tls: .implicit) }, of: profile)
    #expect(same.newlyUntested.isEmpty && same.profile == profile)
  }

  @Test("the usual port follows the protection, another stays")
  func ports() throws {
    let starttls = Self.change { $0.incoming = ServerChange(tls: .starttls) }
    #expect(try ProfileRules().resolve(starttls, of: try Self.profile()).profile.incoming.port == 110)
    #expect(try ProfileRules().resolve(starttls, of: try Self.profile(port: 1_995)).profile.incoming.port == 1_995)
    let both = Self.change { $0.incoming = ServerChange(port: 2_110, tls: .starttls) }
    #expect(try ProfileRules().resolve(both, of: try Self.profile()).profile.incoming.port == 2_110)
  }

  @Test(
    "other credentials forget the login of the former; a new password counts for both directions where they are the same"
  )
  func logins() throws {
    let own = try Self.profile(credentials: .profile, loginAs: "authzid")
    #expect(own.incoming.userName == "sync" && own.outgoing.userName == "sync" && own.outgoing.passwordSet)
    let mailbox = try ProfileRules().resolve(
      Self.change { $0.incoming = ServerChange(credentials: .mailbox) }, of: own)
    #expect(mailbox.newlyUntested == [.incoming, .outgoing])
    for direction in Direction.allCases {
      let settings = mailbox.profile.settings(direction)
      #expect(settings.credentials == .mailbox && settings.userName == nil && !settings.passwordSet)
      #expect(settings.loginAs == nil)
    }
    let password = try ProfileRules().resolve(
      Self.change { $0.incoming = ServerChange(password: Secret("new")) }, of: own)
    #expect(password.passwords == [.incoming: Secret("new"), .outgoing: Secret("new")])
    #expect(password.newlyUntested == [.incoming, .outgoing] && password.profile.incoming.userName == "sync")
    let apart = try ProfileRules().resolve(
      Self.change {
        $0.useSameSettingsForOutgoing = false
        $0.outgoing = ServerChange(credentials: .mailbox)
      }, of: own)
    #expect(apart.newlyUntested == [.outgoing] && apart.profile.incoming.passwordSet)
    // And back: the stored password of one direction cannot be copied to the other.
    let together = Self.change { $0.useSameSettingsForOutgoing = true }
    #expect(problems(together, of: apart.profile) == ["/incoming/password required"])
    let given = Self.change {
      $0.useSameSettingsForOutgoing = true
      $0.incoming = ServerChange(password: Secret("s"))
    }
    #expect(problems(given, of: apart.profile).isEmpty)
  }

  @Test("every wrong field is reported at once; no TLS stays where it was allowed, and is not asked for anew")
  func wrong() throws {
    let bad = Self.change {
      $0.name = ""
      $0.weight = 0
      $0.incoming = ServerChange(host: "bad host", port: 0, userName: "x")
      $0.clears = [.processEmailFrom]
      $0.processEmailFrom = .init(timeIntervalSince1970: 1)
    }
    #expect(
      Set(problems(bad, of: try Self.profile())) == [
        "/name required", "/weight out-of-range", "/incoming/host not-a-host", "/incoming/port out-of-range",
        "/incoming/userName not-allowed", "/outgoing/userName not-allowed", "/processEmailFrom contradiction",
      ])
    let open = try Self.profile(tls: .none)
    #expect(problems(Self.change { $0.weight = 2 }, of: open).isEmpty)
    #expect(
      problems(Self.change { $0.outgoing = ServerChange(tls: TLSMode.none) }, of: try Self.profile())
        == ["/outgoing/tls not-allowed"])
    var standard = try Self.profile()
    standard.isDefault = true
    #expect(problems(Self.change { $0.isDefault = false }, of: standard) == ["/isDefault not-allowed"])
  }
}
