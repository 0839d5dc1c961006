import Foundation
import PostriderCore
import PostriderTesting
import PrivateServers
import Testing

@testable import MailProtocols

/// A mail server as mail providers run it.
enum RealServer: String, CaseIterable, Sendable, CustomTestStringConvertible {
  case postfix, exim, opensmtpd

  var testDescription: String { rawValue }
  /// Debian 12's OpenSMTPD has no TLS that works, and no login without.
  var hasLogins: Bool { self != .opensmtpd }
}

/// One of each, with the accounts anna, ben and victim, and a limit of a million octets.
private struct RealServers: Sendable {
  static let limit = 1_000_000
  static let password = "correct horse, päss"
  static let addresses = ["anna", "ben", "victim"].map { "\($0)@sandbox.test" }

  let postfix: MailSandbox
  let exim: PrivateExim
  let opensmtpd: PrivateOpenSMTPD
  let authority: TestAuthority

  private static let starting = Task { try await RealServers() }
  static func shared() async throws -> RealServers { try await starting.value }

  private init() async throws {
    let data = try await TestServers.shared.dedicatedDirectory(named: "real")
    var options = MailSandbox.Options()
    options.postfix.maximumMessageSize = Self.limit
    postfix = try await MailSandbox.start(in: data, options: options)
    try await postfix.addAccounts(Self.addresses.map { ($0, Self.password) })
    authority = postfix.authority
    let certificate = try await authority.leaf("exim", for: ["mail.sandbox.test", "127.0.0.1"])
    var eximOptions = PrivateExim.Options()
    eximOptions.maximumMessageSize = Self.limit
    exim = try await PrivateExim.start(
      in: data, certificate: certificate, accounts: Self.addresses.map { .init($0, password: Self.password) },
      options: eximOptions)
    var smtpdOptions = PrivateOpenSMTPD.Options()
    smtpdOptions.maximumMessageSize = Self.limit
    opensmtpd = try await PrivateOpenSMTPD.start(in: data, mailboxes: Self.addresses, options: smtpdOptions)
  }

  func port(_ server: RealServer, _ tls: TLSMode) throws -> Int {
    switch (server, tls) {
    case (.postfix, .implicit): try #require(postfix.submissionsPort)
    case (.postfix, _): try #require(postfix.submissionPort)
    case (.exim, .implicit): exim.submissionsPort
    case (.exim, _): exim.submissionPort
    case (.opensmtpd, _): opensmtpd.port
    }
  }

  /// A session, logged in where the server has logins.
  func open(
    _ server: RealServer, tls: TLSMode? = nil, password: String = RealServers.password,
    trace: SessionTrace = SessionTrace(direction: .outgoing)
  ) async throws -> SMTPSession {
    let tls = tls ?? (server.hasLogins ? .starttls : TLSMode.none)
    let endpoint = MailEndpoint(
      kind: .smtp, host: "mail.sandbox.test", port: try port(server, tls), tls: tls,
      caCertificatesPEM: tls == .none ? nil : authority.certificatePEM)
    let session = try await makeClient(resolver: StaticResolver(hosts: ["mail.sandbox.test": ["127.0.0.1"]]))
      .openSMTP(endpoint, heloName: "client.example", trace: trace)
    if server.hasLogins {
      do {
        try await session.authenticate(
          Credentials(userName: Self.addresses[0], password: Secret(password)), mechanism: .auto)
      } catch {
        session.abort()
        throw error
      }
    }
    return session
  }

  /// The delivered messages of a mailbox that hold a mark, as lines without their ends.
  func messages(_ server: RealServer, of address: String, holding mark: String) throws -> [[String]] {
    let all: [[UInt8]] =
      switch server {
      case .postfix:
        try postfix.dovecot.messageFiles(of: address).compactMap { FileManager.default.contents(atPath: $0) }
          .map { Array($0) }
      case .exim: exim.messages(of: address)
      case .opensmtpd: opensmtpd.messages(of: address)
      }
    return all.map { String(decoding: $0, as: UTF8.self) }.filter { $0.contains(mark) }
      .map { $0.components(separatedBy: "\n") }
  }

  /// Waits until a message with a mark was delivered; returns its body's lines.
  func body(_ server: RealServer, of address: String, holding mark: String) async throws -> [String] {
    let lines = try await eventually("the message \(mark)") {
      try messages(server, of: address, holding: mark).first
    }
    return Array(lines.drop { !$0.isEmpty }.dropFirst())
  }
}

@Suite("Postfix, Exim and OpenSMTPD", .enabled(if: geteuid() == 0, "they change between users by themselves"))
struct RealServerTests {
  private static let anna = RealServers.addresses[0]
  private static let ben = RealServers.addresses[1]
  private static let victim = RealServers.addresses[2]

  private func header(_ mark: String) -> String {
    "From: <\(Self.anna)>\r\nTo: <\(Self.ben)>\r\nSubject: \(mark)\r\nMessage-ID: <\(mark)@sandbox.test>\r\n\r\n"
  }

  @Test(
    "logins over STARTTLS and over TLS; a wrong password is refused as one", arguments: [RealServer.postfix, .exim])
  func logins(server: RealServer) async throws {
    let servers = try await RealServers.shared()
    for tls in [TLSMode.starttls, .implicit] {
      let trace = SessionTrace(direction: .outgoing)
      let session = try await servers.open(server, tls: tls, trace: trace)
      let step = trace.steps.first { $0.name == .tls }
      #expect(step?.result == .ok && step?.serverWords?.contains("TLS 1.3") == true, "\(String(describing: step))")
      try await session.quit()
      let failure = await failure { _ = try await servers.open(server, tls: tls, password: "wrong") }
      #expect(failure?.code == .authRejected && failure?.failureClass == .credential)
    }
  }

  @Test("several messages in one session, each recipient answered for itself", arguments: RealServer.allCases)
  func recipients(server: RealServer) async throws {
    let servers = try await RealServers.shared()
    let session = try await servers.open(server)
    for number in 1...3 {
      let mark = "recipients-\(number)-\(UUID().uuidString)"
      let delivery = try await session.send(
        from: Self.anna, to: [Self.ben, "nobody@sandbox.test"], message: Array((header(mark) + "Hello.\r\n").utf8))
      #expect(delivery.isAccepted)
      #expect(delivery.recipients.map(\.failure?.code) == [nil, .smtpRecipient], "\(delivery.recipients)")
      #expect(try await servers.body(server, of: Self.ben, holding: mark).first == "Hello.")
    }
    // Nobody is left: nothing is sent, and the session goes on.
    let delivery = try await session.send(
      from: Self.anna, to: ["nobody@sandbox.test"], message: Array((header("none") + "Hello.\r\n").utf8))
    #expect(!delivery.isAccepted && delivery.recipients.map(\.failure?.code) == [.smtpRecipient])
    try await session.quit()
  }

  @Test("an attachment of half a million octets arrives as it was", arguments: RealServer.allCases)
  func attachment(server: RealServer) async throws {
    let servers = try await RealServers.shared()
    let mark = "attachment-\(UUID().uuidString)"
    let octets = Data((0..<500_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) })
    let text = octets.base64EncodedString(
      options: [.lineLength76Characters, .endLineWithCarriageReturn, .endLineWithLineFeed])
    let session = try await servers.open(server)
    let delivery = try await session.send(
      from: Self.anna, to: [Self.ben],
      message: Array(
        ("MIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
          + header(mark) + text + "\r\n").utf8))
    #expect(delivery.isAccepted)
    try await session.quit()
    let body = try await servers.body(server, of: Self.ben, holding: mark)
    #expect(Data(base64Encoded: body.joined()) == octets)
  }

  @Test("a message above the server's SIZE is refused before its octets leave", arguments: RealServer.allCases)
  func size(server: RealServer) async throws {
    let servers = try await RealServers.shared()
    let session = try await servers.open(server)
    #expect(session.extensions.maximumSizeOctets == Int64(RealServers.limit))
    let line = String(repeating: "x", count: 98) + "\r\n"
    let failure = await failure {
      _ = try await session.send(
        from: Self.anna, to: [Self.ben],
        message: Array((header("large") + String(repeating: line, count: 12_000)).utf8))
    }
    #expect(failure?.code == .smtpTooLarge)
    let delivery = try await session.send(
      from: Self.anna, to: [Self.ben], message: Array((header("small") + "Hello.\r\n").utf8))
    #expect(delivery.isAccepted, "the session goes on")
    try await session.quit()
  }

  /// Ends of data as some server or other has taken them.
  private static let ends = [
    "\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\n.\r", "\r.\n", "\r\n.\r\n",
    "\n\n.\r\n", "\r\n\n.\r\n", "\r\r\n.\r\r\n",
  ]

  /// The lines of a text, whichever of CRLF, CR and LF ends them.
  private static func lines(_ text: String) -> [String] {
    var lines: [[UInt8]] = [[]]
    var last: UInt8 = 0
    // By octets: CRLF is one Character.
    for octet in text.utf8 {
      switch octet {
      case UInt8(ascii: "\n") where last == UInt8(ascii: "\r"): break
      case UInt8(ascii: "\r"), UInt8(ascii: "\n"): lines.append([])
      default: lines[lines.count - 1].append(octet)
      }
      last = octet
    }
    return lines.map { String(decoding: $0, as: UTF8.self) }
  }

  @Test(
    "what looks like an end of data is not one: the message arrives alone, its body intact",
    arguments: RealServer.allCases)
  func smuggling(server: RealServer) async throws {
    let servers = try await RealServers.shared()
    let session = try await servers.open(server)
    for (number, end) in Self.ends.enumerated() {
      let mark = "smuggling-\(number)-\(UUID().uuidString)"
      let hidden =
        "MAIL FROM:<\(Self.ben)>\r\nRCPT TO:<\(Self.victim)>\r\nDATA\r\nSubject: \(mark)\r\n\r\nInside.\r\n"
        + ".\r\nQUIT\r\n"
      let body = "Before.\(end)\(hidden)After.\r\n..two dots\r\n.dot\r\n"
      let delivery = try await session.send(
        from: Self.anna, to: [Self.ben], message: Array((header(mark) + body).utf8))
      #expect(delivery.isAccepted, "\(end.debugDescription)")
      let arrived = try await servers.body(server, of: Self.ben, holding: mark)
      // The server's own empty line at the end is no part of it.
      #expect(
        Array(arrived.reversed().drop { $0.isEmpty }) == Array(Self.lines(body).reversed().drop { $0.isEmpty }),
        "\(end.debugDescription)")
      #expect(try servers.messages(server, of: Self.ben, holding: mark).count == 1, "\(end.debugDescription)")
    }
    try await session.quit()
    #expect(try servers.messages(server, of: Self.victim, holding: "smuggling-").isEmpty)
  }

  @Test("NUL is refused here, before anything leaves", arguments: RealServer.allCases)
  func nul(server: RealServer) async throws {
    let session = try await RealServers.shared().open(server)
    let failure = await failure {
      _ = try await session.send(
        from: Self.anna, to: [Self.ben], message: Array((header("nul") + "a\u{0}\r\n.\r\nb\r\n").utf8))
    }
    #expect(failure?.code == .smtpContent)
    try await session.quit()
  }
}
