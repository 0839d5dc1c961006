import Foundation
import PostriderTesting
import Synchronization

/// A POP3 and an SMTP server for any number of accounts with one password, which know what they offered and what they
/// were given.
final class PostOffice: Sendable {
  /// The password of every account.
  static let password = "office-canary-password"

  private struct State {
    var drops: [String: [(uidl: String, messageID: String, text: String)]] = [:]
    var taken: [String: Int] = [:]
    var refusals = 0
    var swallows = false
    var swallowed: [String] = []
    var count = 0
  }

  private final class Shared: Sendable {
    let state = Mutex(State())
  }

  private let shared: Shared
  private let pop3: ScriptedMailServer
  private let smtp: ScriptedMailServer

  private init(_ shared: Shared, _ pop3: ScriptedMailServer, _ smtp: ScriptedMailServer) {
    (self.shared, self.pop3, self.smtp) = (shared, pop3, smtp)
  }

  /// Opens both; a POP3 session takes about ten times `pause`.
  static func open(pause: Duration = .zero) async throws -> PostOffice {
    let shared = Shared()
    let greeting = "+OK ready\r\n"
    let pop3 = try await ScriptedMailServer.start { _ in
      let session = POP3(shared)
      let hello: ScriptedMailServer.Step = pause > .zero ? .drip(greeting, every: pause) : .send(greeting)
      return [hello, .serve { session.answer($0) }]
    }
    let smtp = try await ScriptedMailServer.start { _ in
      let session = SMTP(shared)
      return [.send("220 office ESMTP\r\n"), .serve { session.answer($0) }]
    }
    return PostOffice(shared, pop3, smtp)
  }

  func close() async {
    await pop3.stop()
    await smtp.stop()
  }

  var incomingPort: Int { pop3.port }
  var outgoingPort: Int { smtp.port }

  /// Puts a message into a maildrop; returns its Message-ID.
  @discardableResult
  func deliver(to address: String) -> String {
    shared.state.withLock { state in
      state.count += 1
      let messageID = "office-\(state.count)@example.org"
      let text = """
        From: sender@example.org\r\nTo: \(address)\r\nSubject: Number \(state.count)\r\nMessage-ID: <\(messageID)>\r
        Date: Sun, 22 Nov 2026 10:00:00 +0000\r\n\r\nWritten by nobody.\r\n
        """
      state.drops[address, default: []].append((uidl: "u\(state.count)", messageID: messageID, text: text))
      return messageID
    }
  }

  /// The Message-IDs in a maildrop.
  func offered(to address: String) -> Set<String> {
    shared.state.withLock { Set($0.drops[address]?.map(\.messageID) ?? []) }
  }

  /// How often each message was handed over, by its Message-ID; those that test an account are left out.
  var taken: [String: Int] { shared.state.withLock(\.taken).filter { !$0.key.hasPrefix("postrider-test.") } }

  /// From now on messages are taken and never answered: whoever sends one cannot know whether it arrived.
  func swallow(_ swallows: Bool) { shared.state.withLock { $0.swallows = swallows } }

  /// The messages that were not answered.
  var swallowed: [String] { shared.state.withLock(\.swallowed) }

  /// Logins with a wrong password.
  var refusals: Int { shared.state.withLock(\.refusals) }

  /// One POP3 session (RFC 1939).
  private final class POP3: Sendable {
    private let shared: Shared
    private let name = Mutex("")

    init(_ shared: Shared) { self.shared = shared }

    func answer(_ line: String) -> ScriptedMailServer.Reply {
      let words = line.split(separator: " ").map(String.init)
      let drop = shared.state.withLock { state in state.drops[name.withLock { $0 }] ?? [] }
      let number = words.dropFirst().first.flatMap { Int($0) }.map { $0 - 1 }
      switch words.first?.uppercased() {
      case "CAPA": return .text("+OK\r\nUSER\r\nUIDL\r\n.\r\n")
      case "USER":
        name.withLock { $0 = words.last ?? "" }
        return .text("+OK\r\n")
      case "PASS":
        if line.dropFirst(5) == PostOffice.password { return .text("+OK\r\n") }
        shared.state.withLock { $0.refusals += 1 }
        return .text("-ERR [AUTH] wrong password\r\n")
      case "STAT": return .text("+OK \(drop.count) \(drop.reduce(0) { $0 + $1.text.utf8.count })\r\n")
      case "UIDL":
        return .text("+OK\r\n" + drop.enumerated().map { "\($0 + 1) \($1.uidl)\r\n" }.joined() + ".\r\n")
      case "LIST":
        return .text("+OK\r\n" + drop.enumerated().map { "\($0 + 1) \($1.text.utf8.count)\r\n" }.joined() + ".\r\n")
      case "RETR":
        guard let number, drop.indices.contains(number) else { return .text("-ERR no such message\r\n") }
        return .text("+OK\r\n\(drop[number].text).\r\n")
      case "QUIT": return .close("+OK\r\n")
      case "NOOP", "RSET", "DELE": return .text("+OK\r\n")
      default: return .text("-ERR unknown\r\n")
      }
    }
  }

  /// One SMTP session (RFC 5321).
  private final class SMTP: Sendable {
    private let shared: Shared
    private let isInMessage = Mutex(false)

    init(_ shared: Shared) { self.shared = shared }

    func answer(_ line: String) -> ScriptedMailServer.Reply {
      let wasInMessage = isInMessage.withLock { value in
        defer { value = false }
        return value
      }
      if wasInMessage { return take(line) }
      switch line.split(separator: " ").first?.uppercased() {
      case "EHLO": return .text("250-office\r\n250-8BITMIME\r\n250 AUTH PLAIN\r\n")
      case "AUTH":
        let response = line.split(separator: " ").last.flatMap { Data(base64Encoded: String($0)) } ?? Data()
        let parts = response.split(separator: 0, omittingEmptySubsequences: false)
        if parts.count == 3, parts[2].elementsEqual(PostOffice.password.utf8) { return .text("235 2.7.0 OK\r\n") }
        shared.state.withLock { $0.refusals += 1 }
        return .text("535 5.7.8 wrong password\r\n")
      case "DATA":
        isInMessage.withLock { $0 = true }
        return .readMessage("354 go on\r\n")
      case "QUIT": return .close("221 2.0.0 bye\r\n")
      case "MAIL", "RCPT", "RSET", "NOOP": return .text("250 2.0.0 OK\r\n")
      default: return .text("502 5.5.2 unknown\r\n")
      }
    }

    private func take(_ message: String) -> ScriptedMailServer.Reply {
      let field = message.split(separator: "\r\n").first { $0.lowercased().hasPrefix("message-id:") } ?? ""
      let messageID = field.dropFirst("message-id:".count).trimmingCharacters(in: CharacterSet(charactersIn: " <>"))
      return shared.state.withLock { state in
        state.taken[messageID, default: 0] += 1
        if state.swallows {
          state.swallowed.append(messageID)
          return .text("")
        }
        return .text("250 2.0.0 OK\r\n")
      }
    }
  }
}
