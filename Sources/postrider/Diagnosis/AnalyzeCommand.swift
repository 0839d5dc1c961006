import ArgumentParser
import Foundation
import MailProtocols
import NIOPosix
import PostriderCore
import Worker

/// `postrider analyze`
struct AnalyzeCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "analyze", abstract: "Try an account step by step, before anything is stored.",
    discussion: """
      Does what test & enable does – look up, connect, protect, log in, list, log out – and prints each step as it ends: \
      what was tried, how long it took, what the server said, and for a failure its code and what to do. Needs neither \
      PostgreSQL nor Redis and stores nothing; it goes by the egress policy of the configuration, so run it where the \
      workers run. The password is asked for when no option and no variable gives it; \
      with --no-password only the way and its protection are tried.
      Exit code 0 when all that was tried works, 1 when something failed, 64 for a wrong call.

      Examples:
        postrider analyze ann@gmail.com --preset gmail
        postrider analyze ann@example.com --incoming pop.example.com --outgoing smtp.example.com:587 --send
        postrider analyze ann@example.com --incoming pop.example.com --no-password --json
        postrider analyze ann@sandbox.test --incoming 127.0.0.1:PORT --data /var/lib/postrider
      """)

  /// The providers that fill in their own servers.
  enum Provider: String, CaseIterable, ExpressibleByArgument {
    case gmail
    case microsoft365

    var type: ProfileType { self == .gmail ? .gmail : .microsoft365 }
  }

  @Argument(help: "The e-mail address.") var address: String

  @Option(
    help: ArgumentHelp(
      "A provider whose servers are known: gmail or microsoft365.",
      discussion: "--incoming and --outgoing replace what it fills in.", valueName: "provider"))
  var preset: Provider?

  @Option(
    help: ArgumentHelp(
      "The POP3 server.", discussion: "Example: --incoming pop.example.com:995", valueName: "host[:port]"))
  var incoming: ServerArgument?

  @Option(
    help: ArgumentHelp(
      "The SMTP server.", discussion: "Example: --outgoing smtp.example.com:587", valueName: "host[:port]"))
  var outgoing: ServerArgument?

  @Option(
    help: ArgumentHelp(
      "How connections are protected: implicit, starttls or none.",
      discussion: "Default: starttls for the ports 110, 587 and 25, else implicit.", valueName: "mode"))
  var tls: TLSMode?

  @Option(help: ArgumentHelp("The same for the POP3 server alone.", valueName: "mode"))
  var incomingTLS: TLSMode?

  @Option(help: ArgumentHelp("The same for the SMTP server alone.", valueName: "mode"))
  var outgoingTLS: TLSMode?

  @Option(
    help: ArgumentHelp(
      "The login mechanism: auto, plain, login, cram-md5, scram-sha-1, scram-sha-256, xoauth2, oauthbearer, ntlm or "
        + "gssapi.", discussion: "Default: auto, the strongest one the server offers.", valueName: "mechanism"))
  var auth: AuthenticationMechanism = .auto

  @Option(help: ArgumentHelp("The login name.", discussion: "Default: the address.", valueName: "name"))
  var userName: String?

  @OptionGroup(title: "Password (also POSTRIDER_MAILBOX_PASSWORD)") var password: PasswordOptions

  @Flag(help: "Really send a test message, from the address to itself. Otherwise nothing is sent.")
  var send = false

  @Option(
    help: ArgumentHelp("Seconds for a connection and for each answer, 1 to 100.", valueName: "seconds"))
  var timeout = 30

  @Option(
    help: ArgumentHelp(
      "Certificates (PEM) to trust instead of the system's.", discussion: "Example: --ca-file /etc/ssl/example.pem",
      valueName: "file"), completion: .file())
  var caFile: String?

  @OptionGroup(title: "Configuration, for the egress policy and the name in EHLO") var role: RoleOptions

  @Flag(help: "Print one JSON object at the end: each direction with its steps, its TLS and its failure.")
  var json = false

  func validate() throws {
    var problems = FieldProblems()
    AddressRules.check(address, at: "", &problems)
    if let problem = problems.problems.first { throw ValidationError("The address \(problem.message).") }
    guard preset != nil || incoming != nil || outgoing != nil else {
      throw ValidationError("Say where: --preset, or --incoming and --outgoing, or one of them.")
    }
    for (name, option) in [("--incoming-tls", incomingTLS), ("--outgoing-tls", outgoingTLS)] where option != nil {
      let server = name == "--incoming-tls" ? incoming : outgoing
      if preset == nil && server == nil { throw ValidationError("\(name) belongs to \(name.dropLast(4)).") }
    }
    if send && server(.outgoing) == nil { throw ValidationError("--send belongs to --outgoing or a --preset.") }
    if send && password.noPassword { throw ValidationError("Nothing can be sent without a login: no --no-password.") }
    guard (1...100).contains(timeout) else { throw ValidationError("--timeout must be from 1 to 100.") }
  }

  func run() async throws {
    try await ClientError.told {
      let settings = try await role.settings(required: [])
      let client = MailClient(group: MultiThreadedEventLoopGroup.singleton, egress: try settings.egress())
      let analysis = try analysis()
      let check = MailCheck(client: client, heloName: settings.heloName)
      let report: AnalysisReport
      if json {
        report = try await analysis.run(check)
        try Terminal.print(try JSONCoding.text(report))
      } else {
        report = try await analysis.run(check, saying: AnalysisText.say)
      }
      if !report.passed { throw ExitCode(1) }
    }
  }

  /// What is to be tried; reads the certificates and the password.
  private func analysis() throws -> Analysis {
    var analysis = Analysis(address: address, incoming: server(.incoming), outgoing: server(.outgoing))
    analysis.caCertificatesPEM = try caFile.map { try CertificateFile.read($0) }
    for server in [analysis.incoming, analysis.outgoing].compactMap({ $0 }) where server.tls == .none {
      Terminal.warn("Warning: without TLS anybody on the way to \(server.host) can read the password.")
    }
    let name = userName ?? address
    let secret = try password.read(
      variable: "POSTRIDER_MAILBOX_PASSWORD", question: "Password of \(Terminal.safe(name)) (empty for no login): ")
    if send && secret == nil { throw ClientError.usage("nothing can be sent without a login: give a password") }
    analysis.credentials = secret.map { Credentials(userName: name, password: $0) }
    analysis.sends = send
    analysis.timeout = .seconds(timeout)
    return analysis
  }

  /// One direction's server with everything filled in; `nil` when it is not asked for.
  func server(_ direction: Direction) -> ServerSettings? {
    let (given, ownTLS) = direction == .incoming ? (incoming, incomingTLS) : (outgoing, outgoingTLS)
    let filled = preset.map { ProfileRules.Preset.of($0.type, direction) }
    guard let host = given?.host ?? filled?.host else { return nil }
    // What a provider's port is says nothing of another host.
    let usual = given == nil ? filled : nil
    let mode = ownTLS ?? tls ?? given?.port.flatMap(Self.usualTLS) ?? usual?.tls ?? .implicit
    let usualPort = usual.flatMap { $0.tls == mode ? $0.port : nil }
    let port = given?.port ?? usualPort ?? ProfileRules.Preset.defaultPort(direction, mode)
    return ServerSettings(host: host, port: port, tls: mode, credentials: .mailbox, mechanism: auth)
  }

  /// How the registered ports are used (RFC 8314); `nil` for others.
  private static func usualTLS(_ port: Int) -> TLSMode? {
    switch port {
    case 995, 465: .implicit
    case 110, 587, 25: .starttls
    default: nil
    }
  }
}

/// `host`, `host:port`, `2001:db8::1` or `[2001:db8::1]:port`.
struct ServerArgument: ExpressibleByArgument, Hashable, Sendable {
  var host: String
  var port: Int?

  init?(argument: String) {
    var rest = argument[...]
    var number: Substring?
    if rest.hasPrefix("["), let close = rest.firstIndex(of: "]") {
      let behind = rest[rest.index(after: close)...]
      guard behind.isEmpty || behind.hasPrefix(":") else { return nil }
      number = behind.isEmpty ? nil : behind.dropFirst()
      rest = rest[rest.index(after: rest.startIndex)..<close]
      guard rest.contains(":") else { return nil }
    } else if rest.count(where: { $0 == ":" }) == 1, let colon = rest.firstIndex(of: ":") {
      number = rest[rest.index(after: colon)...]
      rest = rest[..<colon]
    }
    guard HostRules.isHost(rest) else { return nil }
    host = String(rest)
    if let number {
      guard let port = Int(number), (1...65_535).contains(port) else { return nil }
      self.port = port
    }
  }
}
