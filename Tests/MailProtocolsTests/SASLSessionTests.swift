import Crypto
import Foundation
import PostriderCore
import PostriderTesting
import Synchronization
import Testing

@testable import MailProtocols

/// A server that says yes to everything a login asks of it, by the rules of each mechanism, until a test makes it lie.
final class LoginServer: Sendable {
  /// How it misbehaves.
  enum Lie: String, Sendable, CaseIterable {
    case none
    /// Another signature than the password's.
    case wrongSignature
    /// Success where the signature should be.
    case noSignature
    /// Success at once.
    case early
    /// A million and one rounds of hashing.
    case manyRounds
    /// Refuses and repeats what was sent.
    case echo
    /// The same, cut off.
    case cutEcho
    /// Refuses and says the secret itself.
    case spell
    /// Repeats what was sent as an answer of no protocol.
    case garbage
    /// Goes away.
    case leave
  }

  private struct State {
    var mechanism = ""
    var messages: [String] = []
    var serverFirst = ""
  }

  static let name = "canary-user@example.test"
  static let password = "canary-Passwort-4711-correct-horse"
  static let token = "canary.Token-4711-AbCdEfGhIjKlMnOpQrStUvWxYz-0123456789"

  let isSMTP: Bool
  let lie: Lie
  private let state = Mutex(State())

  init(isSMTP: Bool, lie: Lie = .none) {
    self.isSMTP = isSMTP
    self.lie = lie
  }

  var steps: [ScriptedMailServer.Step] {
    [.send(isSMTP ? "220 mail ESMTP\r\n" : "+OK ready\r\n"), .serve { self.answer($0) }]
  }

  private static let offered = "PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256 XOAUTH2 OAUTHBEARER NTLM"

  private func answer(_ line: String) -> ScriptedMailServer.Reply {
    let words = line.split(separator: " ").map(String.init)
    switch words.first?.uppercased() {
    case "CAPA": return .text("+OK\r\nUSER\r\nUIDL\r\nSASL \(Self.offered)\r\n.\r\n")
    case "EHLO": return .text("250-mail\r\n250 AUTH \(Self.offered)\r\n")
    case "QUIT": return .close(isSMTP ? "221 bye\r\n" : "+OK bye\r\n")
    case "USER": return .text("+OK\r\n")
    case "PASS": return finish(line)
    case "AUTH":
      state.withLock { $0 = State(mechanism: words[1]) }
      if lie == .early { return success }
      guard words.count > 2 else { return challenge(words[1] == "CRAM-MD5" ? "<1896.697170952@example.test>" : "") }
      return message(words[2])
    default: return message(line)
    }
  }

  private func message(_ line: String) -> ScriptedMailServer.Reply {
    let text = SASLBase64.decode(line).map { String(decoding: $0, as: UTF8.self) } ?? line
    let (mechanism, messages) = state.withLock {
      $0.messages.append(text)
      return ($0.mechanism, $0.messages)
    }
    switch mechanism {
    case "LOGIN": return messages.count == 1 ? challenge("Password:") : finish(line)
    case "NTLM":
      return messages.count == 1
        ? .text((isSMTP ? "334 " : "+ ") + "TlRMTVNTUAACAAAAAAAAADAAAACGggEAc51AYVDgyNcAAAAAAAAAAAAAAAAwAAAA\r\n")
        : finish(line)
    case "SCRAM-SHA-1": return scram(messages, line, Insecure.SHA1.self)
    case "SCRAM-SHA-256": return scram(messages, line, SHA256.self)
    default: return finish(line)
    }
  }

  private func scram<Hash: HashFunction>(
    _ messages: [String], _ line: String, _: Hash.Type
  ) -> ScriptedMailServer.Reply {
    let server = SCRAMServer<Hash>(
      password: Self.password, salt: Array("salt".utf8), iterations: lie == .manyRounds ? 1_000_001 : 4_096)
    switch messages.count {
    case 1: return challenge(server.first(messages[0]))
    case 2:
      let final = server.final(
        clientFirst: messages[0], serverFirst: server.first(messages[0]), clientFinal: messages[1])
      switch lie {
      case .wrongSignature: return challenge("v=" + String(final.message.dropFirst(2).reversed()))
      case .noSignature: return success
      case .none where final.isProven: return challenge(final.message)
      default: return finish(line)
      }
    default: return success
    }
  }

  private var success: ScriptedMailServer.Reply { .text(isSMTP ? "235 2.7.0 in\r\n" : "+OK in\r\n") }

  private func challenge(_ text: String) -> ScriptedMailServer.Reply {
    .text((isSMTP ? "334 " : "+ ") + SASLBase64.encode(Array(text.utf8)) + "\r\n")
  }

  /// The end of a login, as the lie wants it.
  private func finish(_ line: String) -> ScriptedMailServer.Reply {
    let no = isSMTP ? "535 5.7.8 " : "-ERR [AUTH] "
    switch lie {
    case .echo: return .text("\(no)cannot: \(line)\r\n")
    case .cutEcho: return .text("\(no)cannot: \(line.prefix(line.count * 2 / 3))...\r\n")
    case .spell:
      // It knows what this client sent, and nothing else.
      let isToken = state.withLock { ["XOAUTH2", "OAUTHBEARER"].contains($0.mechanism) }
      return .text("\(no)\(isToken ? Self.token : Self.password) is wrong\r\n")
    case .garbage: return .text("what is \(line)?\r\n")
    case .leave: return .close("")
    default: return success
    }
  }
}

@Suite("Logins over sockets", .timeLimit(.minutes(10)))
struct SASLSessionTests {
  private static let password = Credentials(userName: LoginServer.name, password: Secret(LoginServer.password))
  private static let token = Credentials(userName: LoginServer.name, accessToken: Secret(LoginServer.token))
  private static let mechanisms: [AuthenticationMechanism] = [
    .plain, .login, .cramMD5, .scramSHA1, .scramSHA256, .ntlm, .xoauth2, .oauthbearer,
  ]

  private func credentials(_ mechanism: AuthenticationMechanism) -> Credentials {
    mechanism == .xoauth2 || mechanism == .oauthbearer ? Self.token : Self.password
  }

  /// Logs in and out; returns the trace, the failure if there was one, and how long the login took.
  private func login(
    _ server: LoginServer, _ mechanism: AuthenticationMechanism
  ) async throws -> (trace: SessionTrace, failure: Failure?, time: Duration) {
    let scripted = try await ScriptedMailServer.start(server.steps)
    defer { Task { await scripted.stop() } }
    let trace = SessionTrace(direction: server.isSMTP ? .outgoing : .incoming)
    let client = try makeClient()
    let endpoint = try await MailEndpoint.test(server.isSMTP ? .smtp : .pop3, scripted)
    let start = ContinuousClock.now
    do {
      if server.isSMTP {
        let session = try await client.openSMTP(endpoint, heloName: "client.example.test", trace: trace)
        defer { session.abort() }
        try await session.authenticate(credentials(mechanism), mechanism: mechanism)
      } else {
        let session = try await client.openPOP3(endpoint, trace: trace)
        defer { session.abort() }
        try await session.authenticate(credentials(mechanism), mechanism: mechanism)
      }
    } catch let failure as Failure {
      return (trace, failure, ContinuousClock.now - start)
    }
    return (trace, nil, ContinuousClock.now - start)
  }

  @Test("every mechanism logs in", arguments: mechanisms, [false, true])
  func works(mechanism: AuthenticationMechanism, isSMTP: Bool) async throws {
    let result = try await login(LoginServer(isSMTP: isSMTP), mechanism)
    #expect(result.failure == nil)
    let step = try #require(result.trace.steps.last)
    #expect(step.name == .authenticate && step.result == .ok)
    #expect(step.tried == "login as \(LoginServer.name) by \(mechanism.rawValue.uppercased())")
  }

  @Test(
    "a server that does not prove itself is left, and the profile says that it is an attack",
    arguments: [LoginServer.Lie.wrongSignature, .noSignature, .early], [false, true])
  func unproven(lie: LoginServer.Lie, isSMTP: Bool) async throws {
    for mechanism in [AuthenticationMechanism.scramSHA1, .scramSHA256] {
      let result = try await login(LoginServer(isSMTP: isSMTP, lie: lie), mechanism)
      #expect(result.failure?.code == .authServerUnproven)
      #expect(result.failure?.failureClass == .attack && result.failure?.scope == .profile)
    }
  }

  @Test("success before the secret was asked for is not followed", arguments: [false, true])
  func early(isSMTP: Bool) async throws {
    for mechanism in [AuthenticationMechanism.login, .cramMD5, .xoauth2, .oauthbearer] {
      let result = try await login(LoginServer(isSMTP: isSMTP, lie: .early), mechanism)
      #expect(result.failure?.code == .protocolSyntax, "\(mechanism)")
    }
  }

  @Test("more rounds of hashing than allowed cost nothing", arguments: [false, true])
  func rounds(isSMTP: Bool) async throws {
    let result = try await login(LoginServer(isSMTP: isSMTP, lie: .manyRounds), .scramSHA256)
    #expect(result.failure?.code == .protocolLimit)
  }

  @Test("a challenge without end", arguments: [false, true])
  func hugeChallenge(isSMTP: Bool) async throws {
    let server = LoginServer(isSMTP: isSMTP)
    let start = server.steps[0]
    let scripted = try await ScriptedMailServer.start([
      start, .expect(isSMTP ? "EHLO" : "CAPA"),
      .send(isSMTP ? "250-x\r\n250 AUTH CRAM-MD5\r\n" : "+OK\r\nSASL CRAM-MD5\r\n.\r\n"), .expect("AUTH CRAM-MD5"),
      .send(isSMTP ? "334 " : "+ "), .flood("QUFB"),
    ])
    let trace = SessionTrace(direction: .incoming)
    let endpoint = try await MailEndpoint.test(isSMTP ? .smtp : .pop3, scripted)
    let failure = await failure {
      if isSMTP {
        let session = try await makeClient().openSMTP(endpoint, heloName: "c.example.test", trace: trace)
        try await session.authenticate(Self.password, mechanism: .cramMD5)
      } else {
        let session = try await makeClient().openPOP3(endpoint, trace: trace)
        try await session.authenticate(Self.password, mechanism: .cramMD5)
      }
    }
    #expect(failure?.code == .protocolLimit)
    await scripted.stop()
  }

  @Test("what a server sends while the client hashes waits for its turn, and ends the session like anything unasked")
  func floodWhileHashing() async throws {
    let flooding = try await ScriptedMailServer.start([
      .send("+OK\r\n"), .expect("CAPA"), .send("+OK\r\nSASL SCRAM-SHA-256\r\n.\r\n"),
      .serve { line in
        guard line.hasPrefix("AUTH") else { return .next }
        let message = line.split(separator: " ").last.flatMap { SASLBase64.decode(String($0)) } ?? []
        let server = SCRAMServer<SHA256>(password: "p", salt: Array("salt".utf8), iterations: 400_000)
        let challenge = server.first(String(decoding: message, as: UTF8.self))
        return .text(
          "+ \(SASLBase64.encode(Array(challenge.utf8)))\r\n" + String(repeating: "+ AAAA\r\n", count: 100_000))
      },
    ])
    let session = try await makeClient().openPOP3(
      .test(.pop3, flooding), trace: SessionTrace(direction: .incoming))
    let failure = await failure { try await session.authenticate(Self.password, mechanism: .scramSHA256) }
    // Seen with the challenge, or, where that came alone, taken for the next one.
    #expect(failure?.code == .protocolSyntax || failure?.code == .authServerUnproven)
    await flooding.stop()
  }

  @Test(
    "no secret in traces and failures, whatever the server repeats",
    arguments: [LoginServer.Lie.none, .echo, .cutEcho, .spell, .garbage, .leave, .wrongSignature], [false, true])
  func canaries(lie: LoginServer.Lie, isSMTP: Bool) async throws {
    for mechanism in Self.mechanisms {
      let result = try await login(LoginServer(isSMTP: isSMTP, lie: lie), mechanism)
      if lie != .none && lie != .wrongSignature { #expect(result.failure != nil, "\(mechanism)") }
      let shown = "\(result.trace.steps) \(result.failure.map { "\($0) \(String(reflecting: $0))" } ?? "")"
      for piece in Self.pieces { #expect(!shown.contains(piece), "\(mechanism), \(piece): \(shown)") }
      // No response either, not even half of one.
      let encoded = shown.split(whereSeparator: { !($0.isLetter || $0.isNumber || "+/=".contains($0)) })
        .filter { $0.count >= 24 && $0.contains { $0.isNumber } && $0.contains { $0.isUppercase } }
      #expect(encoded.isEmpty, "\(mechanism): \(encoded)")
    }
  }

  /// The secrets, half of each, and each in base64 at every offset.
  private static let pieces: [String] = [LoginServer.password, LoginServer.token].flatMap { secret -> [String] in
    let half = String(secret.prefix(secret.count / 2))
    let encodings = (0..<3).map { offset -> String in
      let text = SASLBase64.encode(Array(repeating: 0, count: offset) + Array(secret.utf8))
      return String(text.dropFirst(4).prefix(16))
    }
    return [secret, half] + encodings
  }
}
