import Foundation
import PostriderCore
import Testing

@Suite("Polling slots (features P15)")
struct PollingSlotTests {
  @Test("lie a whole interval apart, whatever the session took")
  func interval() {
    let slots = PollingSlots(mailbox: .init(42), interval: .seconds(300))
    let first = slots.next(after: Date(timeIntervalSince1970: 1_700_000_000))
    for late in [0.0, 0.001, 1, 299.9] {
      let second = slots.next(after: first.addingTimeInterval(late))
      #expect(abs(second.timeIntervalSince(first) - 300) < 0.001)
    }
    // Two missed slots collapse into one.
    #expect(abs(slots.next(after: first.addingTimeInterval(700)).timeIntervalSince(first) - 900) < 0.001)
  }

  @Test("spread mailboxes evenly: no second has 1.3 times the mean")
  func spread() {
    var perSecond = [Int](repeating: 0, count: 60)
    for number in 1...60_000 {
      let slots = PollingSlots(mailbox: .init(Int64(number)), interval: .seconds(60))
      perSecond[Int(slots.phaseMilliseconds / 1_000)] += 1
    }
    #expect(perSecond.max() ?? 0 < 1_300)
    #expect(perSecond.min() ?? 0 > 700)
  }

  @Test(
    "a million mailboxes at five minutes: the busiest second has less than 1.1 times the mean",
    arguments: [
      // Numbers in a row, as a sequence gives them; every other; in blocks of a cached sequence; far apart.
      (first: Int64(1), step: Int64(1)), (1, 2), (1_000_000_007, 1), (1, 32), (1, 300_000),
    ])
  func busiestSecond(first: Int64, step: Int64) {
    var perSecond = [Int](repeating: 0, count: 300)
    let count = 1_000_000
    for index in 0..<Int64(count) {
      let slots = PollingSlots(mailbox: .init(first + index * step), interval: .seconds(300))
      perSecond[Int(slots.phaseMilliseconds / 1_000)] += 1
    }
    let mean = Double(count) / 300
    #expect(Double(perSecond.max() ?? 0) < 1.1 * mean)
    #expect(Double(perSecond.min() ?? 0) > 0.9 * mean)
  }

  @Test("the last slot is the one before the next, and the moment itself when it is a slot")
  func last() {
    let slots = PollingSlots(mailbox: .init(42), interval: .seconds(300))
    let next = slots.next(after: Date(timeIntervalSince1970: 1_700_000_000))
    #expect(slots.last(before: next) == next)
    #expect(abs(slots.last(before: next.addingTimeInterval(299.9)).timeIntervalSince(next)) < 0.001)
    #expect(abs(slots.last(before: next.addingTimeInterval(-0.1)).timeIntervalSince(next) + 300) < 0.001)
  }

  @Test("work before 1970 too")
  func negative() {
    let slots = PollingSlots(mailbox: .init(7), interval: .seconds(60))
    let moment = Date(timeIntervalSince1970: -12_345.678)
    let next = slots.next(after: moment)
    #expect(next > moment && next.timeIntervalSince(moment) <= 60)
  }
}

@Suite("Back-off")
struct BackoffTests {
  @Test("doubles up to the cap and is never under a tenth of its bound", arguments: 1...20)
  func bounds(failures: Int) {
    var generator = SystemRandomNumberGenerator()
    let bound = min(3_600, 60 * pow(2, Double(failures - 1)))
    for _ in 0..<100 {
      let seconds = Backoff().delay(afterFailures: failures, using: &generator) / .seconds(1)
      #expect(seconds <= bound && seconds >= bound * 0.099)
    }
  }
}

@Suite("What follows from a failure (errors table)")
struct DispositionTests {
  let now = Date(timeIntervalSince1970: 1_700_000_000)

  func after(_ failure: Failure, before: Int = 0, last: FailureCode? = nil) -> Disposition {
    var generator = SystemRandomNumberGenerator()
    return DispositionRules(
      direction: .incoming, slots: PollingSlots(mailbox: .init(1), interval: .seconds(300)), failuresBefore: before,
      lastFailureCode: last
    ).failure(failure, at: now, using: &generator)
  }

  func level(_ disposition: Disposition) -> AlertLevel? {
    for case .raise(let draft) in disposition.alerts { return draft.level }
    return nil
  }

  @Test("a credential error is confirmed once, then disables")
  func credential() {
    let first = after(Failure(.authRejected))
    #expect(first.direction == nil && level(first) == .warning)
    #expect(first.next.at.map { $0.timeIntervalSince(now) >= 300 } == true)
    let second = after(Failure(.authRejected), before: 1, last: .authRejected)
    #expect(second.direction?.enabled == false && second.next.at == nil && level(second) == .error)
  }

  @Test("only scope mailbox ever disables", arguments: FailureCode.allCases, [0, 1, 9, 50])
  func scope(code: FailureCode, before: Int) {
    for scope in [FailureScope.server, .profile] {
      let result = after(Failure(code, scope: scope), before: before, last: code)
      #expect(result.direction == nil && result.next.at != nil)
    }
  }

  @Test("ten transient failures of the mailbox disable it, nine do not")
  func transient() {
    #expect(after(Failure(.pop3SysTemp), before: 8, last: .pop3SysTemp).direction == nil)
    #expect(after(Failure(.pop3SysTemp), before: 9, last: .pop3SysTemp).direction?.failureCode == .pop3SysTemp)
  }

  @Test("failures of a server's outage do not count against the mailbox")
  func outage() {
    let temporary = after(Failure(.pop3SysTemp), before: 9, last: .tcpRefused)
    #expect(temporary.direction == nil && temporary.failures == 1)
    #expect(after(Failure(.protocolSyntax), before: 2, last: .tcpClosed).direction == nil)
    #expect(after(Failure(.protocolSyntax), before: 2, last: .pop3SysTemp).direction == nil)
  }

  @Test("a broken protocol is permanent after three")
  func brokenProtocol() {
    #expect(after(Failure(.protocolSyntax), before: 1, last: .protocolLimit).direction == nil)
    #expect(after(Failure(.protocolSyntax), before: 2, last: .protocolLimit).direction?.enabled == false)
  }

  @Test("a busy or throttling server is no failure", arguments: [FailureCode.pop3InUse, .pop3LoginDelay])
  func contention(code: FailureCode) {
    let result = after(Failure(code), before: 3)
    #expect(result.failures == 3 && result.alerts.isEmpty && result.direction == nil)
  }

  @Test("a server's wish to wait is honored up to a day")
  func retryAfter() {
    #expect(after(Failure(.pop3LoginDelay, retryAfterSeconds: 77)).next.at == now.addingTimeInterval(77))
    #expect(after(Failure(.pop3LoginDelay, retryAfterSeconds: .max)).next.at == now.addingTimeInterval(86_400))
  }

  @Test("success resets and resolves")
  func success() {
    let rules = DispositionRules(
      direction: .incoming, slots: PollingSlots(mailbox: .init(1), interval: .seconds(300)), failuresBefore: 2,
      lastFailureCode: .tcpTimeout)
    let result = rules.success(at: now, moreMail: false)
    #expect(result.failures == 0 && result.next.reason == "slot")
    #expect(result.alerts == [.resolve(codes: nil, direction: .incoming)])
    #expect(rules.success(at: now, moreMail: true).next == NextDue(at: now + 1, reason: "more-mail"))
  }
}

@Suite("Profile rules (features P3–P12)")
struct ProfileRuleTests {
  func problems(_ draft: ProfileDraft, _ rules: ProfileRules = ProfileRules()) -> [String] {
    do {
      _ = try rules.resolve(draft)
      return []
    } catch StoreError.invalid(let problems) {
      return problems.map { "\($0.pointer) \($0.code)" }
    } catch { return ["\(error)"] }
  }

  @Test("Gmail and Microsoft 365 fill themselves in")
  func presets() throws {
    let gmail = try ProfileRules().resolve(ProfileDraft(name: "g", type: .gmail))
    #expect(gmail.incoming == ServerSettings(host: "pop.gmail.com", port: 995, tls: .implicit, credentials: .oauth))
    #expect(gmail.outgoing == ServerSettings(host: "smtp.gmail.com", port: 465, tls: .implicit, credentials: .oauth))
    let microsoft = try ProfileRules().resolve(ProfileDraft(name: "m", type: .microsoft365))
    #expect(microsoft.outgoing.port == 587 && microsoft.outgoing.tls == .starttls)
    let password = try ProfileRules().resolve(
      ProfileDraft(name: "g", type: .gmail, incoming: ServerDraft(credentials: .mailbox)))
    #expect(password.warnings == ["gmail.password"])
  }

  @Test(
    "ports follow type and TLS", arguments: [(TLSMode.implicit, 995, 465), (.starttls, 110, 587), (.none, 110, 587)])
  func ports(tls: TLSMode, incoming: Int, outgoing: Int) throws {
    let server = ServerDraft(host: "mail.example.com", tls: tls)
    let profile = try ProfileRules(allowsNonTLSMail: true).resolve(
      ProfileDraft(name: "p", type: .pop3SMTP, incoming: server, outgoing: server))
    #expect(profile.incoming.port == incoming && profile.outgoing.port == outgoing)
  }

  @Test("every wrong field is reported at once")
  func all() {
    let draft = ProfileDraft(
      name: "", type: .pop3SMTP,
      incoming: ServerDraft(host: "bad host", port: 0, tls: TLSMode.none, credentials: .anonymous),
      outgoing: ServerDraft(userName: "x"), useSameSettingsForOutgoing: false, minimumPollingIntervalMinutes: 1_441,
      maximumConcurrentConnections: 301, connectionTimeoutSeconds: 0, caCertificatesPEM: "junk")
    #expect(
      Set(problems(draft)) == [
        "/name required", "/incoming/host not-a-host", "/incoming/port out-of-range", "/incoming/tls not-allowed",
        "/incoming/credentials not-allowed", "/outgoing/host required", "/outgoing/userName not-allowed",
        "/minimumPollingIntervalMinutes out-of-range", "/maximumConcurrentConnections out-of-range",
        "/connectionTimeoutSeconds out-of-range", "/caCertificatesPEM not-pem",
      ])
  }

  @Test("a mechanism that the credentials cannot prove is refused, each with its field")
  func mechanisms() {
    func refused(_ credentials: CredentialSource, _ mechanism: AuthenticationMechanism) -> Bool {
      let server = ServerDraft(
        host: "mail.example.com", credentials: credentials, mechanism: mechanism,
        userName: credentials == .profile ? "svc" : nil)
      let plain = ServerDraft(host: "mail.example.com")
      let draft = ProfileDraft(
        name: "p", type: .pop3SMTP, incoming: credentials == .integrated ? plain : server, outgoing: server,
        useSameSettingsForOutgoing: false)
      return problems(draft).contains { $0.hasSuffix("/mechanism not-allowed") }
    }
    let tokens: Set<AuthenticationMechanism> = [.xoauth2, .oauthbearer]
    for mechanism in AuthenticationMechanism.allCases {
      #expect(refused(.oauth, mechanism) == !(mechanism == .auto || tokens.contains(mechanism)))
      #expect(refused(.integrated, mechanism) == ![.auto, .gssapi].contains(mechanism))
      #expect(refused(.mailbox, mechanism) == (mechanism == .gssapi || tokens.contains(mechanism)))
      #expect(refused(.profile, mechanism) == tokens.contains(mechanism))
    }
  }

  @Test("NTLM is taken with a warning")
  func ntlm() throws {
    let server = ServerDraft(host: "mail.example.com", mechanism: .ntlm)
    let profile = try ProfileRules().resolve(
      ProfileDraft(name: "p", type: .pop3SMTP, incoming: server, outgoing: ServerDraft(host: "mail.example.com")))
    #expect(profile.warnings == ["ntlm.weak"])
  }

  @Test(
    "loginAs: only receiving with the profile's account, and only what can be read",
    arguments: [
      ("authzid", CredentialSource.profile, AuthenticationMechanism.auto, true), ("authzid", .profile, .plain, true),
      ("authzid", .profile, .gssapi, true), ("authzid", .profile, .scramSHA256, false),
      ("authzid", .profile, .login, false), ("{mailbox}*{user}", .profile, .login, true),
      ("{user}/{mailbox}", .profile, .auto, true), ("{mailbox}*{user}", .profile, .gssapi, false),
      ("authzid", .mailbox, .auto, false), ("", .profile, .auto, false), ("{user}", .profile, .auto, false),
      ("{mailbox}{mailbox}", .profile, .auto, false), ("{mailbox}*{name}", .profile, .auto, false),
      ("{mailbox}*{user", .profile, .auto, false), ("{mailbox}\r\nQUIT", .profile, .auto, false),
      ("AUTHZID", .profile, .auto, false),
    ])
  func loginAs(text: String, credentials: CredentialSource, mechanism: AuthenticationMechanism, isTaken: Bool) {
    let own = credentials == .profile
    let draft = ProfileDraft(
      name: "p", type: .pop3SMTP,
      incoming: ServerDraft(
        host: "mail.example.com", credentials: credentials, mechanism: mechanism, userName: own ? "svc" : nil,
        loginAs: text), outgoing: ServerDraft(host: "mail.example.com"))
    #expect(problems(draft).isEmpty == isTaken, "\(problems(draft))")
    var sending = draft
    sending.incoming?.loginAs = nil
    sending.outgoing?.loginAs = text
    #expect(problems(sending).contains("/outgoing/loginAs not-allowed"))
  }

  @Test("a template is for masters, who log in with PLAIN unless something else is said")
  func templateMechanism() throws {
    func mechanism(_ loginAs: String, _ given: AuthenticationMechanism? = nil) throws -> AuthenticationMechanism {
      let server = ServerDraft(
        host: "mail.example.com", credentials: .profile, mechanism: given, userName: "svc", loginAs: loginAs)
      let draft = ProfileDraft(
        name: "p", type: .pop3SMTP, incoming: server, outgoing: ServerDraft(host: "mail.example.com"))
      return try ProfileRules().resolve(draft).incoming.mechanism
    }
    #expect(try mechanism("{mailbox}*{user}") == .plain)
    #expect(try mechanism("{mailbox}*{user}", .auto) == .auto)
    #expect(try mechanism("authzid") == .auto)
  }

  @Test("a template never names another mailbox than its own")
  func templates() throws {
    let template = try #require(LoginTemplate("{mailbox}*{user}"))
    #expect(template.userName(mailbox: "a@x", user: "svc") == "a@x*svc")
    #expect(template.userName(mailbox: "{user}", user: "{mailbox}") == "{user}*{mailbox}")
    #expect(template.userName(mailbox: "b@x*a@x", user: "svc") == nil)
    #expect(template.userName(mailbox: "a@x", user: "s*vc") == nil)
    #expect(template.userName(mailbox: "", user: "svc") == nil)
    #expect(LoginTemplate("{user}/{mailbox}")?.userName(mailbox: "a@x", user: "svc") == "svc/a@x")
    #expect(LoginTemplate("{mailbox}")?.userName(mailbox: "a@x", user: "svc") == "a@x")
    #expect(LoginAs(rawValue: "authzid")?.rawValue == "authzid")
    #expect(LoginAs(rawValue: template.text) == .template(template))
  }

  @Test("line breaks never get in", arguments: ["a\r\nb", "a\u{0}b", "a\nb"])
  func controlCharacters(text: String) {
    let server = ServerDraft(host: "mail.example.com")
    #expect(
      problems(ProfileDraft(name: text, type: .pop3SMTP, incoming: server, outgoing: server))
        == ["/name control-character"])
    #expect(
      !problems(ProfileDraft(name: "p", type: .pop3SMTP, incoming: ServerDraft(host: text), outgoing: server)).isEmpty)
  }
}

@Suite("Mailbox rules (features M1, M2)")
struct MailboxRuleTests {
  @Test(
    "addresses",
    arguments: [
      "support@example.com", "a.b+c@x.example", "o'neil@example.org", "ü@example.com", "straße@bücher.example",
      "почта@пример.рф", "почта@example.com", "ελένη@παράδειγμα.example", "日本語tanaka@例え.example", "हिन्दी@example.in",
    ])
  func good(address: String) throws { try MailboxRules.check(MailboxDraft(address: address)) }

  @Test(
    "refused addresses",
    arguments: [
      "", "@", "a@", "@b", "a b@example.com", "a@b@c", "a@-b.com", "a\r\n@b.com", ".a@b.com", "a..b@c.com",
      String(repeating: "a", count: 65) + "@b.com", "a@" + String(repeating: "b", count: 254),
    ])
  func bad(address: String) {
    #expect(throws: StoreError.self) { try MailboxRules.check(MailboxDraft(address: address)) }
  }

  @Test(
    "Unicode look-alikes are refused, alone and in the domain",
    arguments: [
      "p\u{430}ypal@example.com", "support@ex\u{430}mple.com", "\u{441}om@b.ru\u{441}s", "n\u{3BF}@example.com",
      "\u{FF50}ay@example.com", "\u{1D5D4}da@example.com", "e\u{301}va@example.com", "a\u{200D}da@example.com",
      "of\u{FB01}ce@example.com", "\u{13AA}da@example.com",
    ])
  func lookAlikes(address: String) throws {
    var own = FieldProblems()
    AddressRules.check(address, at: "", &own)
    // Some are no letters at all.
    #expect(!own.problems.isEmpty && own.problems.allSatisfy { ["look-alike", "not-an-address"].contains($0.code) })
    #expect(throws: StoreError.self) { try MailboxRules.check(MailboxDraft(address: address)) }
    // What others chose is their affair: mail goes there.
    var problems = FieldProblems()
    AddressRules.check("p\u{430}ypal@example.com", at: "", isOthers: true, &problems)
    #expect(problems.problems.isEmpty)
  }

  @Test("only queues may delete after processing")
  func delete() throws {
    #expect(throws: StoreError.self) {
      try MailboxRules.check(MailboxDraft(address: "a@b.com", deleteAfterProcessing: true))
    }
    try MailboxRules.check(
      MailboxDraft(address: "a@b.com", owner: OwnerDraft(kind: .queue), deleteAfterProcessing: true))
  }
}

@Suite("Wake-ups")
struct WakeSignalTests {
  @Test("a signal before the wait is remembered, once")
  func remembered() async {
    let signal = WakeSignal()
    signal.signal()
    signal.signal()
    await signal.wait()
    let clock = ContinuousClock()
    let began = clock.now
    await signal.wait(timeout: .milliseconds(30))
    #expect(clock.now - began >= .milliseconds(29))
  }

  @Test("survives a cancelled waiter")
  func cancelled() async {
    let signal = WakeSignal()
    let task = Task { await signal.wait() }
    task.cancel()
    await task.value
    signal.signal()
    await signal.wait()
  }
}
