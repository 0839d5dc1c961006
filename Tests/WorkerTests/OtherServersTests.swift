import Foundation
import MailProtocols
import NIOPosix
import PostriderCore
import PostriderTesting
import Testing

/// POP3 servers of other makes than Dovecot, as their Debian packages are.
@Suite("Courier, Cyrus, GNU mailutils and popa3d", .serialized)
struct OtherServersTests {
  typealias Kind = OtherPOP3Server.Kind

  /// Every way to log in that a server has and we do.
  private static func mechanisms(_ kind: Kind) -> [AuthenticationMechanism] {
    switch kind {
    case .popa3d, .mailutils: [.plain]
    case .courier: [.plain, .login, .cramMD5, .auto]
    case .cyrus: [.plain, .login, .cramMD5, .scramSHA1, .scramSHA256, .auto]
    }
  }

  private func with(_ kind: Kind, _ body: (OtherPOP3Server) async throws -> Void) async throws {
    let server = try await OtherPOP3Server.start(kind)
    let result: Result<Void, any Error>
    do { result = .success(try await body(server)) } catch { result = .failure(error) }
    await server.stop()
    try result.get()
  }

  private func session(
    _ server: OtherPOP3Server, _ user: String = "anna", password: String = OtherPOP3Server.password,
    _ mechanism: AuthenticationMechanism = .plain
  ) async throws -> POP3Session {
    let client = MailClient(
      group: MultiThreadedEventLoopGroup.singleton, egress: try EgressPolicy(allow: "127.0.0.0/8:*"))
    let endpoint = MailEndpoint(kind: .pop3, host: "127.0.0.1", port: server.port, tls: .none)
    let session = try await client.openPOP3(endpoint, trace: SessionTrace(direction: .incoming))
    do {
      try await session.authenticate(Credentials(userName: user, password: Secret(password)), mechanism: mechanism)
      return session
    } catch {
      session.abort()
      throw error
    }
  }

  private func profile(_ cluster: TestCluster, _ server: OtherPOP3Server) async throws -> ServerProfile {
    try await cluster.profile(
      server.kind.rawValue, incoming: ServerDraft(host: "127.0.0.1", port: server.port, tls: TLSMode.none))
  }

  private func mailbox(
    _ cluster: TestCluster, _ account: String, on profile: ServerProfile, password: String = OtherPOP3Server.password,
    deletes: Bool = false
  ) async throws -> MailboxID {
    let id = try await cluster.mailboxes(
      ["\(account)@example.org"], on: profile, password: password, owner: deletes ? .queue : .user, deletes: deletes)[0]
    try await cluster.sql("UPDATE mailbox SET user_name = '\(account)', version = version + 1 WHERE id = \(id)")
    return id
  }

  @Test("every mechanism that it has logs in, and says that the password is wrong", arguments: Kind.allCases)
  func mechanisms(kind: Kind) async throws {
    try await with(kind) { server in
      for mechanism in Self.mechanisms(kind) {
        let session = try await session(server, "anna", mechanism)
        #expect(try await session.list() == 0, "\(mechanism)")
        try await session.quit()
        let failure = await #expect(throws: Failure.self, "\(mechanism)") {
          _ = try await self.session(server, "anna", password: "wrong", mechanism)
        }
        #expect(failure?.failureClass == .credential, "\(mechanism): \(String(describing: failure))")
      }
    }
  }

  @Test("polls, polls again, deletes, refuses, and is in use", arguments: Kind.allCases)
  func life(kind: Kind) async throws {
    try await with(kind) { server in
      for number in 1...3 { try await server.deliver(message("s\(number)")) }
      try await server.deliver(message("gone"), to: "bob")
      try await Spine.with { spine in
        let cluster = spine.cluster
        let profile = try await profile(cluster, server)
        let anna = try await mailbox(cluster, "anna", on: profile)
        try await cluster.enable(anna)
        let first = try #require(try await cluster.waitForRuns(1, of: anna).first)
        #expect(first.result == .success && first.messagesStored == 3, "\(first)")
        #expect(try await cluster.emails(of: anna).map(\.envelope.subject) == ["s1", "s2", "s3"])
        #expect(try await cluster.emails(of: anna).allSatisfy { $0.text?.hasPrefix("Hello.") == true })

        try await server.deliver(message("s4") + "\r\n.\r\n..\r\n.end\r\n")
        let second = try await cluster.poll(anna)
        #expect(second.messagesStored == 1 && second.messagesKnown == 3, "\(second)")
        #expect(try await cluster.emails(of: anna).last?.text?.contains("\n.\n..\n.end\n") == true)

        let bob = try await mailbox(cluster, "bob", on: profile, deletes: true)
        try await cluster.enable(bob)
        let emptied = try #require(try await cluster.waitForRuns(1, of: bob).first)
        #expect(emptied.result == .success && emptied.messagesStored == 1, "\(emptied)")
        let look = try await session(server, "bob")
        #expect(try await look.list() == 0)
        try await look.quit()

        try await isInUse(server, cluster, anna)

        let stranger = try await mailbox(cluster, "stranger", on: profile)
        try await cluster.enable(stranger)
        let refused = try #require(try await cluster.waitForRuns(1, of: stranger).first)
        #expect(refused.failure?.failureClass == .credential, "\(refused)")
      }
    }
  }

  /// Another session has the mailbox open. GNU's server locks it, as RFC 1939 asks; the others let several work at once.
  private func isInUse(_ server: OtherPOP3Server, _ cluster: TestCluster, _ mailbox: MailboxID) async throws {
    let other = try await session(server)
    try await other.list()
    let run = try await cluster.poll(mailbox)
    switch server.kind {
    case .courier, .popa3d, .cyrus: #expect(run.result == .success && run.messagesKnown == 4, "\(run)")
    case .mailutils:
      #expect(run.failure?.code == .pop3InUse, "\(run)")
      #expect(try await cluster.mailbox(mailbox).incoming.enabled)
    }
    try await other.quit()
    try await eventually("the mailbox is free again") { try await cluster.poll(mailbox).result == .success }
  }
}
