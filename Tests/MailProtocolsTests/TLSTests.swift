import NIOCore
import PostriderCore
import PostriderTesting
import Testing

@testable import MailProtocols

@Suite("TLS", .serialized, .timeLimit(.minutes(5)))
struct TLSTests {
  typealias Step = ScriptedMailServer.Step

  private func openPOP3(
    _ server: ScriptedMailServer, _ tls: TLSMode, host: String = "mail.example.test", ca: String? = nil,
    trace: SessionTrace = SessionTrace(direction: .incoming), answer: Duration = .seconds(60)
  ) async throws -> POP3Session {
    var endpoint = try await MailEndpoint.test(.pop3, server, tls: tls, host: host, answer: answer)
    if let ca { endpoint.caCertificatesPEM = ca }
    return try await makeClient().openPOP3(endpoint, trace: trace)
  }

  private func openSMTP(_ server: ScriptedMailServer, _ tls: TLSMode) async throws -> SMTPSession {
    try await makeClient().openSMTP(
      .test(.smtp, server, tls: tls), heloName: "client.example", trace: SessionTrace(direction: .outgoing))
  }

  @Test("implicit TLS by name, and by literal address", arguments: ["mail.example.test", "127.0.0.1"])
  func implicit(host: String) async throws {
    let server = try await ScriptedMailServer.start(
      [.startTLS(try await Certificates.get().good), .send("+OK\r\n")] + POP3SessionTests.capa + [
        .expect("AUTH PLAIN"), .send("+OK\r\n"), .expect("QUIT"), .send("+OK\r\n"),
      ])
    let trace = SessionTrace(direction: .incoming)
    let session = try await openPOP3(server, .implicit, host: host, trace: trace)
    try await session.authenticate(anna, mechanism: .auto)
    try await session.quit()
    #expect(server.mismatches.isEmpty)
    #expect(trace.steps.map(\.name).prefix(3) == [.resolve, .connect, .tls])
    // What people see of it, in words and for programs.
    let facts = try #require(trace.tls)
    #expect(facts.version == "TLS 1.3" && facts.cipher?.hasPrefix("TLS_") == true)
    let certificate = try #require(facts.certificate)
    #expect(certificate.subject == "CN=mail.example.test" && certificate.issuer == "CN=first")
    #expect(certificate.names == ["mail.example.test", "127.0.0.1"])
    #expect(TLSFacts.day(certificate.notBefore) == "2020-01-01" && TLSFacts.day(certificate.notAfter) == "2099-12-31")
    let words = try #require(trace.steps[2].serverWords)
    #expect(words == facts.summary)
    #expect(words.hasPrefix("TLS 1.3, TLS_"))
    #expect(words.hasSuffix("issued by CN=first, valid 2020-01-01 to 2099-12-31"))
  }

  @Test("STLS: capabilities from before are forgotten")
  func stls() async throws {
    let server = try await ScriptedMailServer.start([
      .send("+OK\r\n"), .expect("CAPA"), .send("+OK\r\nSTLS\r\nPIPELINING\r\nSASL PLAIN\r\nUIDL\r\n.\r\n"),
      .expect("STLS"), .send("+OK\r\n"), .startTLS(try await Certificates.get().good), .expect("CAPA"),
      .send("+OK\r\nUSER\r\nUIDL\r\n.\r\n"), .expect("USER"), .send("+OK\r\n"), .expect("PASS"), .send("+OK\r\n"),
    ])
    let session = try await openPOP3(server, .starttls)
    #expect(!session.capabilities.pipelining && session.capabilities.user)
    try await session.authenticate(anna, mechanism: .auto)
    #expect(server.mismatches.isEmpty)
    session.abort()
    #expect(await server.wait { $0.first?.isClosed == true })
  }

  @Test("STARTTLS")
  func startTLS() async throws {
    let server = try await ScriptedMailServer.start([
      .send("220 mx\r\n"), .expect("EHLO"), .send("250-mx\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n"), .expect("STARTTLS"),
      .send("220 go\r\n"), .startTLS(try await Certificates.get().good), .expect("EHLO"),
      .send("250-mx\r\n250 AUTH LOGIN\r\n"),
      .expect("AUTH LOGIN"), .send("334 \r\n"), .expect("YW5uYQ=="), .send("334 \r\n"), .expect("Y29y"),
      .send("235 in\r\n"), .expect("QUIT"), .send("221 bye\r\n"),
    ])
    let session = try await openSMTP(server, .starttls)
    try await session.authenticate(anna, mechanism: .auto)
    try await session.quit()
    #expect(server.mismatches.isEmpty)
  }

  @Test(
    "certificates that do not pass",
    arguments: [
      ("expired", FailureCode.tlsExpired, "the certificate of mail.example.test expired on 2020-02-01"),
      ("notYet", .tlsExpired, "is not valid before 2098-01-01"),
      ("otherName", .tlsNameMismatch, "for elsewhere.example.test, issued by"),
      ("untrusted", .tlsUntrusted, "issued by CN=second"), ("nameless", .tlsNameMismatch, "for no name"),
      ("old", .tlsVersion, "TLS 1.2 or newer"),
    ], [TLSMode.implicit, .starttls])
  func bad(what: (name: String, code: FailureCode, words: String), mode: TLSMode) async throws {
    let all = try await Certificates.get()
    let identities = [
      "expired": all.expired, "notYet": all.notYet, "otherName": all.otherName, "untrusted": all.untrusted,
      "nameless": all.nameless, "old": all.old,
    ]
    let identity = try #require(identities[what.name])
    let before: [Step] =
      mode == .implicit
      ? [] : [.send("+OK\r\n"), .expect("CAPA"), .send("+OK\r\nSTLS\r\n.\r\n"), .expect("STLS"), .send("+OK\r\n")]
    let server = try await ScriptedMailServer.start(before + [.startTLS(identity), .send("+OK\r\n")])
    let trace = SessionTrace(direction: .incoming)
    let failure = await failure { _ = try await openPOP3(server, mode, trace: trace) }
    #expect(failure?.code == what.code)
    #expect(trace.steps.last?.name == .tls)
    #expect(trace.steps.last?.code == what.code)
    // The reason with what it rests on.
    let words = try #require(trace.steps.last?.serverWords)
    #expect(words.contains(what.words), "\(words)")
    if what.name == "old" {
      #expect(trace.tls?.certificate == nil)
    } else {
      #expect(trace.tls?.certificate?.subject == "CN=mail.example.test")
      #expect(words.contains("; the server showed TLS 1.3, TLS_"), "\(words)")
    }
    #expect(await server.wait { $0.first?.isClosed == true })
    #expect(!server.lines.contains { $0.hasPrefix("AUTH") || $0.hasPrefix("USER") })
  }

  @Test(
    "a good certificate under another name, or address, of the same host",
    arguments: ["other.example.test", "127.0.0.2"])
  func otherHost(host: String) async throws {
    let server = try await ScriptedMailServer.start([.startTLS(try await Certificates.get().good), .send("+OK\r\n")])
    let failure = await failure {
      let client = try makeClient(
        resolver: StaticResolver(hosts: ["other.example.test": ["127.0.0.1"]]))
      let endpoint = try await MailEndpoint.test(.pop3, server, tls: .implicit, host: host)
      _ = try await client.openPOP3(endpoint, trace: SessionTrace(direction: .incoming))
    }
    // The server listens on 127.0.0.1 alone, so the other address cannot even be reached.
    #expect(failure?.code == (host == "127.0.0.2" ? .tcpRefused : .tlsNameMismatch))
  }

  @Test("a wildcard certificate")
  func wildcard() async throws {
    let server = try await ScriptedMailServer.start(
      [.startTLS(try await Certificates.get().wildcard), .send("+OK\r\n")] + POP3SessionTests.capa)
    try await openPOP3(server, .implicit).abort()
  }

  @Test(
    "names of a certificate",
    arguments: [
      ("mail.example.test", "mail.example.test", true), ("MAIL.example.TEST.", "mail.EXAMPLE.test", true),
      ("*.example.test", "mail.example.test", true), ("*.example.test", "a.b.example.test", false),
      ("*.example.test", "example.test", false), ("m*.example.test", "mail.example.test", false),
      ("*.test", "example.test", false), ("*", "localhost", false), ("mail.*.test", "mail.example.test", false),
      ("mail.example.test", "mail.example.test.evil.test", false),
      ("mail.example.test\u{0}.evil.test", "mail.example.test", false),
      ("", "", false), ("127.0.0.1", "127.0.0.1", false), ("..", "..", false),
    ])
  func names(presented: String, wanted: String, isFor: Bool) throws {
    let address = try #require(IPAddress("192.0.2.1"))
    let identity = CertificateIdentity(dnsNames: [presented], addresses: [address])
    #expect(identity.isFor(wanted) == isFor)
    #expect(identity.isFor("192.0.2.1") && !identity.isFor("192.0.2.2"))
  }

  @Test("CA certificates that are none")
  func badCA() async throws {
    let server = try await ScriptedMailServer.start([.startTLS(try await Certificates.get().good)])
    let failure = await failure { _ = try await openPOP3(server, .implicit, ca: "no certificates") }
    #expect(failure?.code == .tlsUntrusted)
  }

  @Test("without the profile's CA the system's is asked, and does not know this one")
  func systemCA() async throws {
    let server = try await ScriptedMailServer.start([.startTLS(try await Certificates.get().good)])
    var endpoint = try await MailEndpoint.test(.pop3, server, tls: .implicit)
    endpoint.caCertificatesPEM = nil
    let wanted = endpoint
    let failure = await failure {
      _ = try await makeClient().openPOP3(wanted, trace: SessionTrace(direction: .incoming))
    }
    #expect(failure?.code == .tlsUntrusted)
  }

  @Test("an old server that answers a hello with its own version is named with it")
  func oldHello() {
    struct Refusal: Error, CustomStringConvertible { let description = "UNSUPPORTED_PROTOCOL" }
    let failure = NIOSSLProvider.diagnose(
      Refusal(), TLSFacts(ServerHello(version: 0x0302, cipherSuite: 0xC013)),
      TLSRequirement(serverName: "mail.example.test", caCertificatesPEM: nil, isUpgrade: false))
    #expect(failure.code == .tlsVersion)
    #expect(failure.context?.hasSuffix("the server showed TLS 1.1, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA") == true)
  }

  @Test("a server that closes the connection instead of a handshake")
  func closedHandshake() async throws {
    let server = try await ScriptedMailServer.start([.close])
    let failure = await failure { _ = try await openPOP3(server, .implicit) }
    #expect(failure?.code == .tlsHandshake)
  }

  @Test("certificates' texts are bounded and harmless")
  func texts() {
    let long = String(repeating: "a", count: 5_000)
    let certificate = TLSFacts.Certificate(
      subject: "CN=\u{1B}[2J", issuer: long, names: Array(repeating: long, count: 50), notBefore: .distantPast,
      notAfter: .distantFuture)
    let facts = TLSFacts(version: "TLS 1.3", cipher: "TLS_AES_128_GCM_SHA256", certificate: certificate)
    #expect(facts.summary.contains("CN=\\u{1b}[2J") && facts.summary.count < 800)
    #expect(certificate.names.count == 10 && certificate.issuer.count == 100)
  }

  @Test("a plain port spoken to with TLS")
  func plainPort() async throws {
    let server = try await ScriptedMailServer.start([.send("+OK ready\r\n")])
    let failure = await failure { _ = try await openPOP3(server, .implicit) }
    #expect(failure?.code == .tlsPortMismatch)
  }

  @Test("a TLS port spoken to in plain text", arguments: [TLSMode.none, .starttls])
  func tlsPort(mode: TLSMode) async throws {
    let server = try await ScriptedMailServer.start([.startTLS(try await Certificates.get().good), .send("+OK\r\n")])
    // A port has these two seconds also to answer what it is asked when no greeting comes; one that stands still for as
    // long is taken for silent.
    var code: FailureCode? = .pop3Greeting
    _ = await eventually {
      code = await failure { _ = try await openPOP3(server, mode, answer: .seconds(2)) }?.code
      return code != .pop3Greeting
    }
    #expect(code == .tlsPortMismatch)
  }

  @Test("octets behind the answer to STLS")
  func injection() async throws {
    let server = try await ScriptedMailServer.start(
      [
        .send("+OK\r\n"), .expect("CAPA"), .send("+OK\r\nSTLS\r\n.\r\n"), .expect("STLS"),
        .send("+OK\r\n+OK injected\r\n"),
      ])
    let failure = await failure { _ = try await openPOP3(server, .starttls) }
    #expect(failure?.code == .tlsStartTLSInjection)
    #expect(failure?.failureClass == .attack)
  }

  @Test("plain text that comes after the answer to STLS, in a segment of its own")
  func lateInjection() async throws {
    let server = try await ScriptedMailServer.start(
      [
        .send("+OK\r\n"), .expect("CAPA"), .send("+OK\r\nSTLS\r\n.\r\n"), .expect("STLS"), .send("+OK\r\n"),
        .drip("\n+OK injected\r\n", every: .milliseconds(20)),
      ])
    let failure = await failure { _ = try await openPOP3(server, .starttls) }
    #expect(failure?.code == .tlsStartTLSInjection)
  }

  @Test("STLS not offered, refused, or hidden with CAPA", arguments: ["missing", "refused", "hidden"])
  func stripped(what: String) async throws {
    let steps: [Step] =
      switch what {
      case "missing": [.expect("CAPA"), .send("+OK\r\nUSER\r\n.\r\n")]
      case "refused": [.expect("CAPA"), .send("+OK\r\nSTLS\r\n.\r\n"), .expect("STLS"), .send("-ERR no\r\n")]
      default: [.expect("CAPA"), .send("-ERR what?\r\n"), .expect("STLS"), .send("-ERR what?\r\n")]
      }
    let server = try await ScriptedMailServer.start([.send("+OK\r\n")] + steps)
    let failure = await failure { _ = try await openPOP3(server, .starttls) }
    #expect(failure?.code == .tlsStartTLSMissing)
    #expect(failure?.failureClass == .attack)
    #expect(await server.wait { $0.first?.isClosed == true })
    #expect(server.mismatches.isEmpty)
  }

  @Test("STARTTLS not offered, or refused", arguments: [true, false])
  func strippedSMTP(offered: Bool) async throws {
    let server = try await ScriptedMailServer.start([
      .send("220 mx\r\n"), .expect("EHLO"), .send(offered ? "250-mx\r\n250 STARTTLS\r\n" : "250 mx\r\n"),
      .expect("STARTTLS"), .send("454 4.7.0 not now\r\n"),
    ])
    let failure = await failure { _ = try await openSMTP(server, .starttls) }
    #expect(failure?.code == .tlsStartTLSMissing)
  }

  @Test("a handshake that never ends")
  func silentHandshake() async throws {
    let server = try await ScriptedMailServer.start([])
    var endpoint = try await MailEndpoint.test(.pop3, server, tls: .implicit)
    endpoint.connectTimeout = .seconds(2)
    let wanted = endpoint
    let failure = await failure {
      _ = try await makeClient().openPOP3(wanted, trace: SessionTrace(direction: .incoming))
    }
    #expect(failure?.code == .tcpTimeout)
    #expect(await server.wait { $0.first?.isClosed == true })
  }

  @Test("abort does not wait for TLS's goodbye")
  func abort() async throws {
    let asked = ScriptSignal()
    let server = try await ScriptedMailServer.start(
      [.startTLS(try await Certificates.get().good), .send("+OK\r\n")] + POP3SessionTests.capa + [
        .expect("UIDL"), .signal(asked), .stopReading,
      ])
    let session = try await openPOP3(server, .implicit)
    async let listed = failure { _ = try await session.list() }
    await asked.wait()
    let start = ContinuousClock.now
    session.abort()
    #expect(await listed?.code == .runAborted)
    // The goodbye would be waited for as long as TLS has time for it.
    #expect(ContinuousClock.now - start < .seconds(5))
  }
}
