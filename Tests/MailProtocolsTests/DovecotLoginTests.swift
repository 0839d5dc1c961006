import Foundation
import PostriderCore
import PostriderTesting
import PrivateServers
import Testing

@testable import MailProtocols

/// A Dovecot and a Postfix that take every mechanism of theirs, with masters and tokens.
private struct Provider: Sendable {
  let sandbox: MailSandbox
  let tokens: TokenServer

  static let password = "correct horse, päss"
  static let master = ("sync", "master-secret")
  private static let starting = Task {
    let tokens = try await TokenServer.start()
    var options = MailSandbox.Options()
    options.submission = .whenRoot
    // All of Dovecot 2.3 for passwords and tokens; tickets have tests of their own.
    options.dovecot.mechanisms = [
      "plain", "login", "cram-md5", "scram-sha-1", "scram-sha-256", "xoauth2", "oauthbearer",
    ]
    options.dovecot.masters = [master.0: master.1]
    options.dovecot.introspectionURL = tokens.url
    let sandbox = try await MailSandbox.start(
      in: try await TestServers.shared.dedicatedDirectory(named: "logins"), options: options)
    try await sandbox.addAccounts([("anna@sandbox.test", password), ("bob@sandbox.test", "bob's own")])
    tokens.grant("good-token.4711", to: "anna@sandbox.test")
    for name in ["anna", "bob"] {
      try sandbox.deliver(to: "\(name)@sandbox.test", subject: "for \(name)")
    }
    return Provider(sandbox: sandbox, tokens: tokens)
  }

  static func shared() async throws -> Provider { try await starting.value }

  func endpoint(_ kind: MailEndpoint.ProtocolKind, tls: TLSMode = .implicit) throws -> MailEndpoint {
    let port: Int? =
      switch (kind, tls) {
      case (.pop3, .implicit): sandbox.pop3sPort
      case (.pop3, _): sandbox.pop3Port
      case (.smtp, .implicit): sandbox.submissionsPort
      case (.smtp, _): sandbox.submissionPort
      }
    return MailEndpoint(
      kind: kind, host: sandbox.hostName, port: try #require(port), tls: tls,
      caCertificatesPEM: tls == .none ? nil : sandbox.caPEM)
  }

  func client() throws -> MailClient {
    try makeClient(resolver: StaticResolver(hosts: [sandbox.hostName: ["127.0.0.1"]]))
  }
}

@Suite("Logins at a real Dovecot and Postfix", .timeLimit(.minutes(10)))
struct DovecotLoginTests {
  private static let anna = Credentials(userName: "anna@sandbox.test", password: Secret(Provider.password))
  private static let token = Credentials(userName: "anna@sandbox.test", accessToken: Secret("good-token.4711"))
  private static let mechanisms: [AuthenticationMechanism] = [
    .plain, .login, .cramMD5, .scramSHA1, .scramSHA256, .xoauth2, .oauthbearer,
  ]

  private func credentials(_ mechanism: AuthenticationMechanism, good: Bool) -> Credentials {
    var credentials = mechanism == .xoauth2 || mechanism == .oauthbearer ? Self.token : Self.anna
    if !good {
      credentials.proof = credentials.password == nil ? .accessToken(Secret("bad-token")) : .password(Secret("wrong"))
    }
    return credentials
  }

  /// Logs in over POP3 and returns the first message of the maildrop, and the trace.
  private func receive(
    _ credentials: Credentials, _ mechanism: AuthenticationMechanism, tls: TLSMode = .implicit
  ) async throws -> (text: String, login: TraceStep?) {
    let provider = try await Provider.shared()
    let trace = SessionTrace(direction: .incoming)
    let session = try await provider.client().openPOP3(provider.endpoint(.pop3, tls: tls), trace: trace)
    defer { session.abort() }
    try await session.authenticate(credentials, mechanism: mechanism)
    var entries: [POP3Entry] = []
    try await session.list { entries += $0 }
    let text = entries.isEmpty ? "" : String(decoding: try await session.top(1, lines: 0), as: UTF8.self)
    try await session.quit()
    return (text, trace.steps.first { $0.name == .authenticate })
  }

  @Test("POP3: every mechanism opens the right maildrop", arguments: mechanisms)
  func receives(mechanism: AuthenticationMechanism) async throws {
    let (text, login) = try await receive(credentials(mechanism, good: true), mechanism)
    #expect(text.contains("Subject: for anna"))
    #expect(login?.tried.hasSuffix("by \(mechanism.rawValue.uppercased())") == true)
  }

  @Test("POP3: every mechanism says that the secret is wrong, and the session can say goodbye", arguments: mechanisms)
  func refused(mechanism: AuthenticationMechanism) async throws {
    let provider = try await Provider.shared()
    let trace = SessionTrace(direction: .incoming)
    let session = try await provider.client().openPOP3(provider.endpoint(.pop3), trace: trace)
    let failure = await failure {
      try await session.authenticate(credentials(mechanism, good: false), mechanism: mechanism)
    }
    #expect(failure?.code == .authRejected && failure?.failureClass == .credential, "\(String(describing: failure))")
    try await session.quit()
    if mechanism == .xoauth2 || mechanism == .oauthbearer {
      #expect(failure?.context?.contains("the server's reason: status") == true, "\(String(describing: failure))")
    }
  }

  @Test("auto takes SCRAM-SHA-256 with a password and OAUTHBEARER with a token, with TLS and without")
  func auto() async throws {
    for tls in [TLSMode.implicit, .starttls, .none] {
      #expect(try await receive(Self.anna, .auto, tls: tls).login?.tried.hasSuffix("by SCRAM-SHA-256") == true)
      #expect(try await receive(Self.token, .auto, tls: tls).login?.tried.hasSuffix("by OAUTHBEARER") == true)
    }
  }

  @Test(
    "SMTP: every mechanism logs in, and says when the secret is wrong", .enabled(if: geteuid() == 0),
    arguments: mechanisms)
  func sends(mechanism: AuthenticationMechanism) async throws {
    let provider = try await Provider.shared()
    for good in [true, false] {
      let trace = SessionTrace(direction: .outgoing)
      let session = try await provider.client().openSMTP(
        provider.endpoint(.smtp), heloName: "client.example.test", trace: trace)
      defer { session.abort() }
      if good {
        try await session.authenticate(credentials(mechanism, good: true), mechanism: mechanism)
        let delivery = try await session.send(
          from: "anna@sandbox.test", to: ["anna@sandbox.test"], message: Array("Subject: x\r\n\r\nx\r\n".utf8))
        #expect(delivery.isAccepted)
      } else {
        let failure = await failure {
          try await session.authenticate(credentials(mechanism, good: false), mechanism: mechanism)
        }
        #expect(failure?.code == .authRejected, "\(String(describing: failure))")
      }
      try await session.quit()
    }
  }

  @Test("one account opens the maildrop of each mailbox: by authorization identity, and by a name with both")
  func delegation() async throws {
    let (name, password) = Provider.master
    for user in ["anna", "bob"] {
      let mailbox = "\(user)@sandbox.test"
      let identity = Credentials(userName: name, password: Secret(password), authorizationIdentity: mailbox)
      #expect(try await receive(identity, .auto).text.contains("Subject: for \(user)"))
      let template = try #require(LoginTemplate("{mailbox}*{user}"))
      let login = Credentials(
        userName: try #require(template.userName(mailbox: mailbox, user: name)), password: Secret(password))
      for mechanism in [AuthenticationMechanism.plain, .login] {
        #expect(try await receive(login, mechanism).text.contains("Subject: for \(user)"), "\(mechanism)")
      }
    }
    let nobody = Credentials(userName: name, password: Secret(password), authorizationIdentity: "nobody@sandbox.test")
    await #expect(throws: Failure.self) { try await receive(nobody, .plain) }
  }
}
