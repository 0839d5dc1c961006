import Foundation
import Logging
import PostriderCore
import PostriderTesting
import PrivateServers
import Synchronization
import Testing

/// A Dovecot with a master, and one that believes in tokens.
private struct Delegating: Sendable {
  let sandbox: MailSandbox
  let tokens: TokenServer

  static let users = ["ann", "bob", "cid"].map { "\($0)@sandbox.test" }
  private static let starting = Task {
    let tokens = try await TokenServer.start()
    var options = MailSandbox.Options()
    options.submission = .none
    options.dovecot.mechanisms += ["xoauth2", "oauthbearer"]
    options.dovecot.masters = ["sync": "master-secret"]
    options.dovecot.introspectionURL = tokens.url
    let sandbox = try await MailSandbox.start(
      in: try await TestServers.shared.dedicatedDirectory(named: "delegation"), options: options)
    try await sandbox.addAccounts(users.map { ($0, Sandbox.password) })
    return Delegating(sandbox: sandbox, tokens: tokens)
  }

  static func shared() async throws -> Delegating { try await starting.value }

  func draft(_ credentials: CredentialSource, loginAs: String? = nil) -> ServerDraft {
    let own = credentials == .profile
    return ServerDraft(
      host: sandbox.hostName, port: sandbox.pop3sPort, tls: .implicit, credentials: credentials,
      userName: own ? "sync" : nil, password: own ? Secret("master-secret") : nil, loginAs: loginAs)
  }
}

/// Keeps everything that is logged, as text.
final class LogKeeper: Sendable {
  private let lines = Mutex<[String]>([])

  var text: String { lines.withLock { $0.joined(separator: "\n") } }

  func add(_ line: String) { lines.withLock { $0.append(line) } }

  var logger: Logger {
    var logger = Logger(label: "kept") { _ in Handler(keeper: self) }
    logger.logLevel = .trace
    return logger
  }

  private struct Handler: LogHandler {
    let keeper: LogKeeper
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.trace

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
      get { metadata[key] }
      set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
      keeper.add("\(event.level) \(event.message) \(metadata.merging(event.metadata ?? [:]) { $1 })")
    }
  }
}

@Suite("One account for many mailboxes", .serialized)
struct DelegationTests {
  @Test("each mailbox gets its own mail and no other's", arguments: ["authzid", "{mailbox}*{user}"])
  func ownMail(loginAs: String) async throws {
    let provider = try await Delegating.shared()
    let mark = loginAs == "authzid" ? "identity" : "template"
    for user in Delegating.users {
      for number in 1...3 { try provider.sandbox.deliver(to: user, subject: "\(mark) \(number) for \(user)") }
    }
    try await Spine.with(workers: 2) { spine in
      let cluster = spine.cluster
      let profile = try await cluster.profile(
        incoming: provider.draft(.profile, loginAs: loginAs), caPEM: provider.sandbox.caPEM)
      let mailboxes = try await cluster.mailboxes(Delegating.users, on: profile, password: nil)
      for mailbox in mailboxes {
        let test = try await cluster.test(mailbox)
        #expect(test.result == .success, "\(test)")
        #expect(test.steps.contains { $0.name == .authenticate && $0.tried.hasSuffix("by PLAIN") })
      }
      for (user, mailbox) in zip(Delegating.users, mailboxes) {
        _ = try await cluster.poll(mailbox)
        let subjects = try await cluster.emails(of: mailbox).map(\.envelope.subject)
        #expect(subjects.filter { $0.hasPrefix(mark) } == (1...3).map { "\(mark) \($0) for \(user)" })
        #expect(subjects.allSatisfy { $0.hasSuffix("for \(user)") })
      }
      // What comes later, all at once.
      for user in Delegating.users { try provider.sandbox.deliver(to: user, subject: "\(mark) later for \(user)") }
      try await cluster.makeDue(mailboxes)
      for (user, mailbox) in zip(Delegating.users, mailboxes) {
        try await eventually("the later mail of \(user)") {
          try await cluster.emails(of: mailbox).contains { $0.envelope.subject == "\(mark) later for \(user)" }
        }
        let subjects = try await cluster.emails(of: mailbox).map(\.envelope.subject)
        #expect(subjects.allSatisfy { $0.hasSuffix("for \(user)") })
      }
    }
  }

  @Test("a user name that holds the template's separator reaches no server")
  func ambiguous() async throws {
    let provider = try await Delegating.shared()
    try await Spine.with { spine in
      let cluster = spine.cluster
      let profile = try await cluster.profile(
        incoming: provider.draft(.profile, loginAs: "{mailbox}*{user}"), caPEM: provider.sandbox.caPEM)
      let mailbox = try await cluster.mailbox("ann*x@sandbox.test", on: profile, password: nil)
      let test = try await cluster.test(mailbox)
      #expect(test.failure?.code == .credentialsAmbiguous && test.steps.isEmpty)
      #expect(try await cluster.mailbox(mailbox).incoming.status == .failure)
    }
  }

  @Test("a stored access token logs in; a bad one, an old one and none never fall back to the password")
  func token() async throws {
    let provider = try await Delegating.shared()
    let user = Delegating.users[0]
    provider.tokens.grant("live-token", to: user)
    try await Spine.with { spine in
      let cluster = spine.cluster
      let profile = try await cluster.profile(incoming: provider.draft(.oauth), caPEM: provider.sandbox.caPEM)
      // The account's right password is stored too.
      let mailbox = try await cluster.mailbox(user, on: profile, password: Sandbox.password)
      #expect(try await cluster.test(mailbox).failure?.code == .oauthNotConfigured)
      func give(_ token: String, for seconds: Double = 3_600) async throws {
        try await cluster.store.storeAccessToken(
          Secret(token), expiresAt: Date(timeIntervalSinceNow: seconds), mailbox: mailbox, by: cluster.principal)
      }
      try await give("live-token")
      let test = try await cluster.test(mailbox)
      #expect(test.result == .success, "\(test)")
      #expect(test.steps.contains { $0.tried.hasSuffix("by OAUTHBEARER") })
      #expect(try await cluster.mailbox(mailbox).incoming.enabled)
      try await give("dead-token")
      let refused = try await cluster.poll(mailbox)
      #expect(refused.failure?.code == .authRejected && refused.failure?.failureClass == .credential)
      #expect(refused.failure?.context?.contains("status") == true)
      try await give("live-token", for: -1)
      #expect(try await cluster.test(mailbox).failure?.code == .oauthGrantExpired)
    }
  }

  @Test("a canary password and token: nothing of them in logs and in the database, whatever the server says")
  func canaries() async throws {
    let secrets = ["canary-Passwort-0815", "canary.token.0815.AbCdEfGhIjKlMnOp"]
    let encoded = secrets.map { String(Data($0.utf8).base64EncodedString().prefix(20)) }
    let offered = "PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256 XOAUTH2 OAUTHBEARER NTLM"
    // It knows what the client sends, and says it.
    let secret = Mutex(secrets[0])
    let server = try await ScriptedMailServer.start([
      .send("+OK ready\r\n"),
      .serve { line in
        if line.hasPrefix("AUTH") { secret.withLock { $0 = secrets[line.contains("OAUTH") ? 1 : 0] } }
        return switch line.split(separator: " ").first {
        case "CAPA": .text("+OK\r\nUSER\r\nUIDL\r\nSASL \(offered)\r\n.\r\n")
        case "QUIT": .close("+OK\r\n")
        case "AUTH" where line.split(separator: " ").count == 2: .text("+ PDE4OTYuNjk3MTcwOTUyQHg+\r\n")
        default: .text("-ERR [AUTH] cannot \(line), \(secret.withLock { $0 })\r\n")
        }
      },
    ])
    let keeper = LogKeeper()
    try await Spine.with(TestCluster.Options(logger: keeper.logger)) { spine in
      let cluster = spine.cluster
      let settings: [AuthenticationMechanism] = [
        .auto, .plain, .login, .cramMD5, .scramSHA1, .scramSHA256, .ntlm, .xoauth2, .oauthbearer,
      ]
      for (index, mechanism) in settings.enumerated() {
        let usesToken = mechanism == .xoauth2 || mechanism == .oauthbearer
        let profile = try await cluster.profile(
          "P\(index)",
          incoming: ServerDraft(
            host: "127.0.0.1", port: server.port, tls: TLSMode.none, credentials: usesToken ? .oauth : .mailbox,
            mechanism: mechanism))
        let mailbox = try await cluster.mailbox("m\(index)@example.org", on: profile, password: secrets[0])
        if usesToken {
          try await cluster.store.storeAccessToken(
            Secret(secrets[1]), expiresAt: Date(timeIntervalSinceNow: 3_600), mailbox: mailbox, by: cluster.principal)
        }
        let test = try await cluster.test(mailbox)
        #expect(test.failure != nil, "\(mechanism)")
      }
      let tables = try await cluster.sql(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')")
      var stored = ""
      for table in tables.split(separator: "\n") {
        stored += try await cluster.sql("SELECT coalesce(string_agg(x::text, ' '), '') FROM \"\(table)\" x")
      }
      #expect(stored.contains("auth.rejected") && stored.contains("redacted"))
      for piece in secrets + encoded { #expect(!stored.contains(piece) && !keeper.text.contains(piece), "\(piece)") }
    }
    #expect(!keeper.text.isEmpty)
    await server.stop()
  }
}
