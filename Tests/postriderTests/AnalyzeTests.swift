import Foundation
import MailProtocols
import PostriderCore
import PostriderTesting
import PrivateServers
import Testing

@testable import postrider

/// The mail servers and certificates of these tests, started at first use.
private struct MailSite: Sendable {
  static let password = "correct horse"
  let sandbox: MailSandbox
  private let folder: String

  private static let starting = Task { try await MailSite() }

  static func shared() async throws -> MailSite { try await starting.value }

  private init() async throws {
    let data = try await TestServers.shared.dedicatedDirectory(named: "analyze")
    folder = data.path
    sandbox = try await MailSandbox.start(in: data)
    try await sandbox.addAccount(address, password: Self.password)
  }

  /// An account of the sandbox.
  var address: String { "ann@\(sandbox.domain)" }

  /// The file of the authority that signs everything here.
  var authority: String { sandbox.authority.certificatePath }

  /// What a scripted server shows.
  func identity(
    _ label: String, for names: [String] = ["127.0.0.1"], _ validity: TestAuthority.Validity = .current
  ) async throws -> ScriptedTLS {
    let leaf = try await sandbox.authority.leaf(label, for: names, validity: validity)
    return ScriptedTLS(certificatesPEM: leaf.certificatePEM, privateKeyPEM: leaf.keyPEM)
  }

  /// An authority that nobody here trusts.
  func stranger() async throws -> ScriptedTLS {
    let authority = try await TestAuthority.open(in: folder + "/stranger")
    let leaf = try await authority.leaf("leaf", for: ["127.0.0.1"])
    return ScriptedTLS(certificatesPEM: leaf.certificatePEM, privateKeyPEM: leaf.keyPEM)
  }
}

/// Runs the program where it may go to this machine.
private func analyze(
  _ arguments: [String], password: String = MailSite.password, allow: String = "127.0.0.1/32:*"
) async throws -> Program.Result {
  try await Program.run(
    ["analyze"] + arguments + (arguments.contains("--no-password") ? [] : ["--password-stdin"]),
    environment: allow.isEmpty ? [:] : ["POSTRIDER_EGRESS_ALLOW": allow], input: password + "\n")
}

extension Program.Result {
  fileprivate var report: AnalysisReport {
    get throws { try JSONCoding.decoder().decode(AnalysisReport.self, from: Data(output.utf8)) }
  }
}

@Suite("postrider analyze (T7): without PostgreSQL and Redis", .serialized, .timeLimit(.minutes(10)))
struct AnalyzeTests {
  typealias Step = ScriptedMailServer.Step

  // MARK: Real servers

  @Test("Dovecot and Postfix: every step, and the message really arrives")
  func realServers() async throws {
    let site = try await MailSite.shared()
    let sandbox = site.sandbox
    let result = try await analyze([
      site.address, "--incoming", "127.0.0.1:\(sandbox.pop3sPort)", "--outgoing",
      "127.0.0.1:\(try #require(sandbox.submissionPort))", "--outgoing-tls", "starttls", "--ca-file", site.authority,
      "--send",
    ])
    #expect(result.exitCode == 0, "\(result.output)\(result.errors)")
    #expect(result.errors.isEmpty)
    var text = result.output[...]
    for words in [
      "incoming: POP3 at 127.0.0.1:", "ok       resolve", "ok       connect", "ok       tls", "TLS 1.3, TLS_",
      "certificate of CN=\(sandbox.hostName) for ", "ok       greeting", "ok       capabilities",
      "ok       authenticate", "login as \(site.address)", "ok       list", "0 messages", "ok       quit",
      "incoming works (", "outgoing: SMTP at 127.0.0.1:", "STARTTLS", "ok       tls", "ok       authenticate",
      "ok       send", "ok       quit", "outgoing works (",
    ] {
      let found = try #require(text.firstRange(of: words), "\(words) is not, or not there, in\n\(result.output)")
      text = text[found.upperBound...]
    }
    #expect(!result.output.contains(MailSite.password))
    #expect(await eventually { (try? sandbox.dovecot.messageFiles(of: site.address).count) == 1 })
  }

  @Test("--json; nothing is sent unless asked for")
  func json() async throws {
    let site = try await MailSite.shared()
    let sandbox = site.sandbox
    let address = "json@\(sandbox.domain)"
    try await sandbox.addAccount(address, password: MailSite.password)
    let result = try await analyze([
      address, "--incoming", "127.0.0.1:\(sandbox.pop3Port)", "--incoming-tls", "starttls", "--outgoing",
      "127.0.0.1:\(try #require(sandbox.submissionsPort))", "--ca-file", site.authority, "--json",
    ])
    #expect(result.exitCode == 0, "\(result.output)\(result.errors)")
    let report = try result.report
    #expect(report.passed && result.output.contains("\"passed\" : true"))
    let incoming = try #require(report.incoming)
    let outgoing = try #require(report.outgoing)
    #expect(
      incoming.steps.map(\.name) == [
        .resolve, .connect, .greeting, .capabilities, .tls, .capabilities, .authenticate, .list, .quit,
      ])
    #expect(
      outgoing.steps.map(\.name) == [.resolve, .connect, .tls, .greeting, .capabilities, .authenticate, .send, .quit])
    #expect(outgoing.steps.filter { $0.result == .skipped }.map(\.name) == [.send])
    for part in [incoming, outgoing] {
      #expect(part.userName == address && part.failure == nil)
      #expect(part.handshake?.version == "TLS 1.3")
      #expect(part.handshake?.certificate?.names.contains(sandbox.hostName) == true)
    }
    #expect(try sandbox.dovecot.messageFiles(of: address).isEmpty)
  }

  @Test("a wrong password: code, the server's words, remedy, exit code 1; the other direction is tried all the same")
  func wrongPassword() async throws {
    let site = try await MailSite.shared()
    let result = try await analyze(
      [
        site.address, "--incoming", "127.0.0.1:\(site.sandbox.pop3sPort)", "--outgoing",
        "127.0.0.1:\(try #require(site.sandbox.submissionsPort))", "--ca-file", site.authority,
      ], password: "wrong-secret")
    #expect(result.exitCode == 1)
    for words in [
      "FAILED   authenticate", "auth.rejected: The server refused", "What to do: Enter the right credentials",
      "incoming does not work: auth.rejected", "outgoing does not work: auth.rejected",
    ] { #expect(result.output.contains(words), "\(words) is not in\n\(result.output)") }
    #expect(!(result.output + result.errors).contains("wrong-secret"))
  }

  @Test("without a password only the way and the protection are tried")
  func noPassword() async throws {
    let site = try await MailSite.shared()
    let result = try await analyze([
      site.address, "--incoming", "127.0.0.1:\(site.sandbox.pop3sPort)", "--ca-file", site.authority, "--no-password",
    ])
    #expect(result.exitCode == 0, "\(result.output)\(result.errors)")
    #expect(result.output.contains("left out authenticate"))
    #expect(result.output.contains("nobody logged in"))
    #expect(!result.output.contains("outgoing"))
  }

  @Test("the egress policy of the configuration counts, and the remedy names both keys")
  func egress() async throws {
    let result = try await analyze(["a@example.com", "--incoming", "127.0.0.1", "--json"], allow: "")
    #expect(result.exitCode == 1)
    let failure = try #require(try result.report.incoming?.failure)
    #expect(failure.code == .egressDenied && failure.context == "127.0.0.1 leads to 127.0.0.1, a loopback address")
    let port = try await analyze(["a@example.com", "--incoming", "192.0.2.1:7777", "--json"], allow: "")
    let denied = try #require(try port.report.incoming?.failure)
    #expect(denied.code == .egressDenied && denied.context?.contains("port 7777") == true)
    for name in ["POSTRIDER_EGRESS_ALLOW", "POSTRIDER_EGRESS_PORTS"] { #expect(denied.remedy.contains(name)) }
  }

  // MARK: TLS

  @Test(
    "exactly what is wrong with TLS",
    arguments: [
      ("wrong name", FailureCode.tlsNameMismatch, "for elsewhere.test, issued by"),
      ("expired", .tlsExpired, "the certificate of 127.0.0.1 expired on 20"),
      ("not yet", .tlsExpired, "is not valid before 20"),
      ("untrusted", .tlsUntrusted, "does not lead to a trusted authority"),
      ("old", .tlsVersion, "TLS 1.2 or newer"),
      ("plain", .tlsPortMismatch, "the port speaks plain text, the profile expects TLS"),
    ])
  func tls(what: (name: String, code: FailureCode, words: String)) async throws {
    let site = try await MailSite.shared()
    var identity: ScriptedTLS?
    switch what.name {
    case "wrong name": identity = try await site.identity("elsewhere", for: ["elsewhere.test"])
    case "expired": identity = try await site.identity("expired", .expired)
    case "not yet": identity = try await site.identity("notyet", .notYet)
    case "untrusted": identity = try await site.stranger()
    case "old":
      identity = try await site.identity("good")
      identity?.isOld = true
    default: break
    }
    let hello = identity.map { [Step.startTLS($0)] } ?? []
    let servers = [
      "incoming": try await ScriptedMailServer.start(hello + [.send("+OK ready\r\n")]),
      "outgoing": try await ScriptedMailServer.start(hello + [.send("220 ready\r\n")]),
    ]
    for (direction, server) in servers {
      let result = try await analyze([
        "a@example.com", "--\(direction)", "127.0.0.1:\(server.port)", "--tls", "implicit", "--ca-file",
        site.authority, "--json",
      ])
      #expect(result.exitCode == 1)
      let report = try result.report
      let part = try #require(direction == "incoming" ? report.incoming : report.outgoing)
      let last = try #require(part.steps.last)
      #expect(part.failure?.code == what.code && last.name == .tls && last.code == what.code)
      #expect(last.serverWords?.contains(what.words) == true, "\(last)")
      #expect(last.remedy == what.code.remedy)
      // A hello may hold line ends; nothing of the account was said.
      #expect(!server.lines.contains { $0.contains("a@example.com") || $0.hasPrefix("AUTH") })
    }
  }

  @Test("a TLS port spoken to in plain text", arguments: ["none", "starttls"])
  func portSpeaksTLS(mode: String) async throws {
    let site = try await MailSite.shared()
    let identity = try await site.identity("good")
    let server = try await ScriptedMailServer.start([.startTLS(identity), .send("+OK\r\n")])
    func ask() async throws -> Program.Result {
      try await analyze([
        "a@example.com", "--incoming", "127.0.0.1:\(server.port)", "--tls", mode, "--timeout", "5", "--json",
      ])
    }
    var result = try await ask()
    // A port has five seconds to answer what it is asked when no greeting comes; one that stands still for as long is
    // taken for silent.
    _ = try await eventually {
      if try result.report.incoming?.failure?.code != .pop3Greeting { return true }
      result = try await ask()
      return false
    }
    #expect(result.exitCode == 1)
    let part = try #require(try result.report.incoming)
    #expect(part.failure?.code == .tlsPortMismatch && part.steps.last?.name == .greeting)
    #expect(result.errors.contains("without TLS") == (mode == "none"))
  }

  @Test("a server that never greets ends with the timeout")
  func silence() async throws {
    let server = try await ScriptedMailServer.start([])
    for (direction, code) in [("incoming", FailureCode.pop3Greeting), ("outgoing", .smtpGreeting)] {
      let result = try await analyze([
        "a@example.com", "--\(direction)", "127.0.0.1:\(server.port)", "--tls", "starttls", "--timeout", "5", "--json",
      ])
      let report = try result.report
      let part = try #require(report.incoming ?? report.outgoing)
      #expect(result.exitCode == 1)
      // Five seconds for the greeting, five to ask whether it is a TLS port, more on a busy machine.
      let last = try #require(part.steps.last)
      #expect(last.name == .greeting && (5_000..<60_000).contains(last.milliseconds))
      #expect(part.failure?.code == code || part.failure?.code == .tcpTimeout)
    }
  }

  @Test("a closed port, and a host that does not exist")
  func unreachable() async throws {
    let port = try LoopbackPort.free()
    let result = try await analyze([
      "a@example.com", "--incoming", "127.0.0.1:\(port)", "--outgoing", "nowhere.invalid", "--json",
    ])
    #expect(result.exitCode == 1)
    let report = try result.report
    #expect(report.incoming?.failure?.code == .tcpRefused)
    #expect([.dnsUnknownHost, .dnsTemporary].contains(report.outgoing?.failure?.code))
    #expect(report.outgoing?.steps.map(\.name) == [.resolve])
  }

  // MARK: Calls

  @Test("a file without certificates ends with 64 before anything is asked or tried")
  func badCA() async throws {
    let server = try await ScriptedMailServer.start([])
    try await withFolder { folder in
      for text in ["no certificates", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"] {
        #expect(FileManager.default.createFile(atPath: "\(folder)/ca.pem", contents: Data(text.utf8)))
        let result = try await analyze([
          "a@example.com", "--incoming", "127.0.0.1:\(server.port)", "--ca-file", "\(folder)/ca.pem",
        ])
        #expect(result.exitCode == 64)
        #expect(result.errors.contains("ca.pem holds no certificate in PEM form"))
      }
      let missing = try await analyze(["a@example.com", "--incoming", "127.0.0.1", "--ca-file", "\(folder)/none"])
      #expect(missing.exitCode == 64 && missing.errors.contains("cannot be read"))
    }
    #expect(server.connections.isEmpty)
  }

  @Test func wrongCalls() async throws {
    let calls: [([String], String)] = [
      (["a@example.com"], "Say where"), (["nobody", "--preset", "gmail"], "must be an e-mail address"),
      (["a@example.com", "--incoming", "a b"], "--incoming"), (["a@example.com", "--incoming", "h:0"], "--incoming"),
      (["a@example.com", "--incoming", "h", "--timeout", "0"], "--timeout must be from 1 to 100"),
      (["a@example.com", "--incoming", "h", "--send"], "--send belongs to --outgoing"),
      (["a@example.com", "--outgoing", "h", "--send", "--no-password"], "without a login"),
      (["a@example.com", "--incoming", "h", "--outgoing-tls", "starttls"], "--outgoing-tls belongs to --outgoing"),
      (["a@example.com", "--preset", "yahoo"], "gmail"),
      (["a@example.com", "--incoming", "h", "--password", "hunter2"], "never an argument"),
    ]
    for (arguments, words) in calls {
      let result = try await Program.run(["analyze"] + arguments)
      #expect(result.exitCode == 64, "\(arguments)")
      #expect(result.errors.contains(words), "\(result.errors)")
      #expect(!result.errors.contains("hunter2"))
    }
    let nobody = try await Program.run(["analyze", "a@example.com", "--incoming", "127.0.0.1"])
    #expect(nobody.exitCode == 64 && nobody.errors.contains("--no-password"))
    let wrong = try await Program.run(
      ["analyze", "a@example.com", "--incoming", "h", "--no-password"],
      environment: ["POSTRIDER_EGRESS_PORTS": "many"])
    #expect(wrong.exitCode == 78 && wrong.errors.contains("POSTRIDER_EGRESS_PORTS"))
  }

  private static let fillings: [([String], String?, String?)] = [
    (["--preset", "gmail"], "pop.gmail.com:995 implicit", "smtp.gmail.com:465 implicit"),
    (["--preset", "microsoft365"], "outlook.office365.com:995 implicit", "smtp.office365.com:587 starttls"),
    (
      ["--preset", "gmail", "--outgoing-tls", "starttls"], "pop.gmail.com:995 implicit", "smtp.gmail.com:587 starttls"
    ),
    (["--preset", "gmail", "--incoming", "pop.x.test"], "pop.x.test:995 implicit", "smtp.gmail.com:465 implicit"),
    (
      ["--preset", "microsoft365", "--outgoing", "x.test"], "outlook.office365.com:995 implicit",
      "x.test:465 implicit"
    ),
    (["--incoming", "pop.x.test"], "pop.x.test:995 implicit", nil),
    (["--incoming", "pop.x.test:110"], "pop.x.test:110 starttls", nil),
    (["--incoming", "pop.x.test:1110"], "pop.x.test:1110 implicit", nil),
    (["--incoming", "pop.x.test:110", "--tls", "none"], "pop.x.test:110 none", nil),
    (["--incoming", "pop.x.test", "--tls", "starttls"], "pop.x.test:110 starttls", nil),
    (["--outgoing", "smtp.x.test:587"], nil, "smtp.x.test:587 starttls"),
    (["--outgoing", "[2001:db8::1]:2525"], nil, "2001:db8::1:2525 implicit"),
    (["--outgoing", "2001:db8::1"], nil, "2001:db8::1:465 implicit"),
  ]

  @Test("what is left out fills itself in", arguments: fillings)
  func defaults(filling: (arguments: [String], incoming: String?, outgoing: String?)) throws {
    let (arguments, incoming, outgoing) = filling
    let command = try AnalyzeCommand.parse(["a@example.com"] + arguments)
    func text(_ direction: Direction) -> String? {
      command.server(direction).map { "\($0.host):\($0.port) \($0.tls.rawValue)" }
    }
    #expect(text(.incoming) == incoming)
    #expect(text(.outgoing) == outgoing)
  }

  @Test func help() async throws {
    let result = try await Program.run(["analyze", "--help"])
    #expect(result.exitCode == 0)
    for words in ["postrider analyze ann@gmail.com --preset gmail", "--json", "--ca-file", "Exit code 0"] {
      #expect(result.output.contains(words))
    }
    #expect(!result.output.contains("--password <"))
  }

  @Test("what a server says cannot harm a terminal")
  func harmless() {
    let step = TraceStep(
      direction: .incoming, name: .greeting, tried: "greeting of \u{1B}[2J", result: .ok, startedAt: Date(),
      milliseconds: 1, serverWords: "hello \u{1B}]0;x\u{7}")
    #expect(AnalysisText.lines(.step(step)).allSatisfy { !$0.contains("\u{1B}") && !$0.contains("\u{7}") })
  }
}
