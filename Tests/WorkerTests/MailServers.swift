import Foundation
import PostriderCore
import PostriderTesting
import PrivateServers
import Synchronization

/// The Dovecot and Postfix of this test process; each test makes accounts of its own.
enum Sandbox {
  private static let starting = Task {
    try await MailSandbox.start(in: try await TestServers.shared.dedicatedDirectory(named: "mail"))
  }
  private static let accounts = Accounts()
  static let password = "correct horse"

  static func shared() async throws -> MailSandbox { try await starting.value }

  /// A new account with the password ``password``; returns its address.
  static func account() async throws -> String {
    try await accounts.make(in: try await shared())
  }

  /// Makes one after the other: the servers' files take one writer at a time.
  private actor Accounts {
    private var last: Task<String, any Error>?
    private var count = 0

    func make(in sandbox: MailSandbox) async throws -> String {
      count += 1
      let address = "user\(count)@\(sandbox.domain)"
      let task = Task { [last] in
        // The one before may have failed; its test says so.
        _ = await last?.result
        try await sandbox.addAccount(address, password: Sandbox.password)
        return address
      }
      last = task
      return try await task.value
    }
  }
}

extension TestCluster {
  /// A profile of the shared Dovecot and Postfix.
  func sandboxProfile(incoming: ServerDraft? = nil, outgoing: ServerDraft? = nil) async throws -> ServerProfile {
    let sandbox = try await Sandbox.shared()
    return try await profile(
      incoming: incoming ?? ServerDraft(host: sandbox.hostName, port: sandbox.pop3sPort, tls: .implicit),
      outgoing: outgoing ?? ServerDraft(host: sandbox.hostName, port: sandbox.submissionPort, tls: .starttls),
      caPEM: sandbox.caPEM)
  }

  /// A profile of a scripted server, without TLS.
  func profile(
    _ server: ScriptedMailServer, name: String = "Scripted", credentials: CredentialSource = .mailbox,
    connections: Int = 10, timeoutSeconds: Int = 20
  ) async throws -> ServerProfile {
    let own = credentials == .profile
    return try await profile(
      name,
      incoming: ServerDraft(
        host: "127.0.0.1", port: server.port, tls: TLSMode.none, credentials: credentials,
        userName: own ? "delegate" : nil, password: own ? Secret("secret") : nil,
        loginAs: own ? "{mailbox}*{user}" : nil),
      connections: connections, timeoutSeconds: timeoutSeconds)
  }
}

/// What a scripted POP3 server answers: one maildrop, the same for every login.
final class Maildrop: Sendable {
  private let content: Mutex<[(uidl: String, text: String)]>

  init(_ messages: [(uidl: String, text: String)] = []) { content = Mutex(messages) }

  func add(_ uidl: String, _ text: String) { content.withLock { $0.append((uidl, text)) } }

  /// Greets and answers.
  var script: [ScriptedMailServer.Step] { [.send("+OK ready\r\n"), .serve { self.answer($0) }] }

  func answer(_ line: String) -> ScriptedMailServer.Reply {
    let words = line.split(separator: " ")
    let messages = content.withLock { $0 }
    let message = words.dropFirst().first.flatMap { Int($0) }.flatMap {
      messages.indices.contains($0 - 1) ? messages[$0 - 1] : nil
    }
    let all = messages.enumerated()
    switch words.first?.uppercased() {
    case "CAPA": return .text("+OK\r\nUSER\r\nUIDL\r\nTOP\r\nRESP-CODES\r\n.\r\n")
    case "STAT": return .text("+OK \(messages.count) \(messages.reduce(0) { $0 + $1.text.utf8.count })\r\n")
    case "UIDL": return .text("+OK\r\n" + all.map { "\($0 + 1) \($1.uidl)\r\n" }.joined() + ".\r\n")
    case "LIST": return .text("+OK\r\n" + all.map { "\($0 + 1) \($1.text.utf8.count)\r\n" }.joined() + ".\r\n")
    case "RETR":
      guard let message else { return .text("-ERR no such message\r\n") }
      let stuffed = message.text.replacingOccurrences(of: "\r\n.", with: "\r\n..")
      return .text("+OK\r\n" + stuffed + (message.text.hasSuffix("\r\n") ? "" : "\r\n") + ".\r\n")
    case "TOP":
      guard let message else { return .text("-ERR no such message\r\n") }
      let header = message.text.components(separatedBy: "\r\n\r\n")[0]
      return .text("+OK\r\n\(header)\r\n\r\n.\r\n")
    case "QUIT": return .close("+OK\r\n")
    default: return .text("+OK\r\n")
    }
  }
}

/// A short message.
func message(_ subject: String, body: String = "Hello.") -> String {
  "From: a@example.org\r\nTo: b@example.org\r\nSubject: \(subject)\r\nMessage-ID: <\(subject)@example.org>\r\n\r\n\(body)\r\n"
}

/// The steps of a poll that stops in its middle: `reached` fires when the client asks for the list, `go` lets it on.
func held(
  _ drop: Maildrop, at command: String = "UIDL", reached: ScriptSignal, go: ScriptSignal
) -> [ScriptedMailServer.Step] {
  [
    .send("+OK ready\r\n"),
    .serve { line in line.uppercased().hasPrefix(command) ? .next : drop.answer(line) },
    .signal(reached), .wait(go),
    .send(textOf(drop.answer("UIDL"))),
    .serve { drop.answer($0) },
  ]
}

private func textOf(_ reply: ScriptedMailServer.Reply) -> String {
  if case .text(let text) = reply { return text }
  return ""
}
