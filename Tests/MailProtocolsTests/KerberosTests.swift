import Foundation
import PostriderCore
import PostriderTesting
import PrivateServers
import Testing

@testable import MailProtocols

/// A realm with a Dovecot and a Postfix, in which this process is `worker`.
private struct Realm: Sendable {
  let kdc: PrivateKDC
  let sandbox: MailSandbox

  private static let starting = Task {
    let data = try await TestServers.shared.dedicatedDirectory(named: "kerberos")
    let kdc = try await PrivateKDC.start(in: data)
    var options = MailSandbox.Options()
    options.submission = .whenRoot
    options.dovecot.mechanisms = ["gssapi", "plain"]
    // One keytab: Postfix asks this Dovecot, as `smtp`.
    let keys = try await kdc.keytab(for: "pop/mail.sandbox.test", "smtp/mail.sandbox.test")
    options.dovecot.kerberos = PrivateDovecot.Kerberos(
      configurationPath: kdc.configurationPath, keytabPath: keys, hostName: "mail.sandbox.test",
      trustedPrincipal: "worker@\(kdc.realm)")
    let sandbox = try await MailSandbox.start(in: data, options: options)
    for name in ["anna", "bob"] {
      try await sandbox.addAccount("\(name)@sandbox.test", password: "unused")
      try sandbox.deliver(to: "\(name)@sandbox.test", subject: "for \(name)")
    }
    // As an operator gives them to a worker. No other test of this process has a ticket to lose by it.
    setenv("KRB5_CONFIG", kdc.configurationPath, 1)
    setenv("KRB5_CLIENT_KTNAME", try await kdc.keytab(for: "worker"), 1)
    setenv("KRB5CCNAME", "MEMORY:worker", 1)
    return Realm(kdc: kdc, sandbox: sandbox)
  }

  static func shared() async throws -> Realm { try await starting.value }

  func endpoint(_ kind: MailEndpoint.ProtocolKind, host: String? = nil) throws -> MailEndpoint {
    MailEndpoint(
      kind: kind, host: host ?? sandbox.hostName,
      port: kind == .pop3 ? sandbox.pop3sPort : try #require(sandbox.submissionsPort), tls: .implicit,
      caCertificatesPEM: sandbox.caPEM, answerTimeout: .seconds(60))
  }
}

@Suite("GSSAPI in a real realm", .serialized, .timeLimit(.minutes(10)))
struct KerberosTests {
  private func worker(for mailbox: String?) -> Credentials {
    Credentials(userName: "worker", proof: .workerIdentity, authorizationIdentity: mailbox)
  }

  private func client() throws -> MailClient {
    try makeClient(
      resolver: StaticResolver(hosts: ["mail.sandbox.test": ["127.0.0.1"], "localhost": ["127.0.0.1"]]))
  }

  @Test("POP3: the worker's ticket opens the maildrop that is named, and only of those who trust it")
  func receives() async throws {
    let realm = try await Realm.shared()
    for user in ["anna", "bob"] {
      let trace = SessionTrace(direction: .incoming)
      let session = try await client().openPOP3(realm.endpoint(.pop3), trace: trace)
      defer { session.abort() }
      try await session.authenticate(worker(for: "\(user)@sandbox.test"), mechanism: .gssapi)
      #expect(try await session.list() == 1)
      #expect(String(decoding: try await session.top(1, lines: 0), as: UTF8.self).contains("for \(user)"))
      #expect(trace.steps.contains { $0.tried == "login as worker for \(user)@sandbox.test by GSSAPI" })
      try await session.quit()
    }
    let session = try await client().openPOP3(realm.endpoint(.pop3), trace: SessionTrace(direction: .incoming))
    let refused = await failure {
      try await session.authenticate(worker(for: "nobody@sandbox.test"), mechanism: .gssapi)
    }
    #expect(refused?.code == .authRejected, "\(String(describing: refused))")
    try await session.quit()
  }

  @Test("SMTP: auto takes GSSAPI for the worker's own identity", .enabled(if: geteuid() == 0, "Postfix needs root"))
  func sends() async throws {
    let realm = try await Realm.shared()
    let trace = SessionTrace(direction: .outgoing)
    let session = try await client().openSMTP(
      realm.endpoint(.smtp), heloName: "client.example.test", trace: trace)
    defer { session.abort() }
    try await session.authenticate(worker(for: "anna@sandbox.test"), mechanism: .auto)
    let delivery = try await session.send(
      from: "anna@sandbox.test", to: ["bob@sandbox.test"], message: Array("Subject: x\r\n\r\nx\r\n".utf8))
    #expect(delivery.isAccepted)
    #expect(trace.steps.contains { $0.tried.hasSuffix("by GSSAPI") })
    try await session.quit()
  }

  @Test("a host that the realm does not know is told nothing")
  func unknownHost() async throws {
    let realm = try await Realm.shared()
    let session = try await client().openPOP3(
      realm.endpoint(.pop3, host: "localhost"), trace: SessionTrace(direction: .incoming))
    let failure = await failure { try await session.authenticate(worker(for: "anna@sandbox.test"), mechanism: .gssapi) }
    #expect(failure?.code == .authKerberos && failure?.failureClass == .transient)
    #expect(failure?.scope == .profile)
  }

  @Test("a KDC that does not answer holds up nobody but the login that waits for it")
  func silentKDC() async throws {
    let realm = try await Realm.shared()
    await realm.kdc.pause()
    var endpoint = try realm.endpoint(.pop3, host: "localhost")
    // Long enough for the answers that the mail server does give.
    endpoint.answerTimeout = .seconds(5)
    let session = try await client().openPOP3(endpoint, trace: SessionTrace(direction: .incoming))
    let start = ContinuousClock.now
    let failure = await failure { try await session.authenticate(worker(for: "anna@sandbox.test"), mechanism: .gssapi) }
    let time = ContinuousClock.now - start
    await realm.kdc.resume()
    #expect(failure?.code == .authKerberos && failure?.context?.contains("in time") == true)
    #expect(time < .seconds(20))
  }
}
