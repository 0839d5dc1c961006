import Foundation
import PostriderCore
import PostriderTesting
import Testing

@testable import MailProtocols

/// One script of an attack on STARTTLS, collected elsewhere: every `.ron` under `starttls-attacks` in the folder that
/// `POSTRIDER_CORPORA` names.
struct AttackScript: Sendable, CustomTestStringConvertible {
  let name: String
  let script: RustyNotation
  var testDescription: String { name }
  var isSMTP: Bool { name.hasPrefix("smtp/") }

  static let all: [AttackScript] = {
    guard let root = ProcessInfo.processInfo.environment["POSTRIDER_CORPORA"] else { return [] }
    let folder = root + "/starttls-attacks"
    let names = FileManager.default.enumerator(atPath: folder)?.compactMap { $0 as? String } ?? []
    return names.filter { $0.hasSuffix(".ron") }.sorted().flatMap { name in
      let text = (try? String(contentsOfFile: "\(folder)/\(name)", encoding: .utf8)) ?? ""
      // The injections of some are left to be switched on by whoever watches a client.
      let armed = text.replacing("//stls_response: ", with: "stls_response: ")
        .replacing("//stls_make_transition: ", with: "stls_make_transition: ")
      // One that cannot be read has no fields, and fails as a test of its own.
      return (armed == text ? [(name, text)] : [(name, text), ("\(name), armed", armed)]).map { name, text in
        AttackScript(name: name, script: (try? RustyNotation(text)) ?? .word("unreadable"))
      }
    }
  }()

  private var overrides: [String: String] {
    guard case .fields(let fields)? = script["override_response"] else { return [:] }
    return Dictionary(fields.compactMap { key, value in value.string.map { (key.lowercased(), $0) } }) { $1 }
  }

  private var hidden: Set<String> { Set(script["hide_commands"]?.strings.map { $0.lowercased() } ?? []) }

  private func capabilities(_ key: String) -> String {
    guard isSMTP else {
      return "+OK\r\n" + (script[key]?.strings ?? []).map { $0 + "\r\n" }.joined() + ".\r\n"
    }
    let lines = (script[key]?.items ?? []).map { item -> String in
      switch item {
      case .word("StartTLS"): "STARTTLS"
      case .call("Auth", let groups):
        "AUTH "
          + groups.flatMap(\.items).map { mechanism in
            switch mechanism {
            case .word(let word): word.uppercased()
            case .call(_, let values): values.first?.string ?? ""
            default: ""
            }
          }.joined(separator: " ")
      default: "HELP"
      }
    }
    let all = ["mail.example.test"] + lines
    return all.enumerated().map { "250\($0.offset == all.count - 1 ? " " : "-")\($0.element)\r\n" }.joined()
  }

  /// What the server says to a command in clear text; `nil` to begin TLS behind the answer.
  private func answer(_ line: String) -> ScriptedMailServer.Reply {
    let command = line.split(separator: " ").first.map { $0.lowercased() } ?? ""
    let name = command == "stls" ? "stls" : command
    if let text = overrides[name] { return .text(text) }
    let unknown = isSMTP ? "500 no such command\r\n" : "-ERR no such command\r\n"
    if hidden.contains(name) { return .text(unknown) }
    switch command {
    case "ehlo": return .text(capabilities("capabilities"))
    case "helo": return .text("250 mail.example.test\r\n")
    case "capa": return .text(capabilities("capa"))
    case "stls", "starttls": return begins ? .next : .text(script["stls_response"]?.string ?? unknown)
    case "quit": return .close(isSMTP ? "221 bye\r\n" : "+OK bye\r\n")
    // Whoever asks for a login here gets one: it must not happen.
    case "auth": return .text(isSMTP ? "235 in\r\n" : "+OK in\r\n")
    case "user", "pass": return .text("+OK\r\n")
    default: return .text(unknown)
    }
  }

  /// Whether the server really takes a handshake.
  private var begins: Bool { script["stls_make_transition"].map { !$0.isFalse } ?? true }

  /// Whether a client may end up logged in: only where TLS truly began with nothing behind the server's answer.
  var mayLogIn: Bool {
    begins && overrides["stls"] == nil && overrides["starttls"] == nil
      && (script["stls_response"]?.string.map { $0.split(separator: "\r\n").count == 1 } ?? true)
  }

  func steps(_ identity: ScriptedTLS) -> [ScriptedMailServer.Step] {
    let greeting = script["greeting"]?.string ?? (isSMTP ? "220 mail.example.test ESMTP\r\n" : "+OK\r\n")
    let begin = script["stls_response"]?.string ?? (isSMTP ? "220 go ahead\r\n" : "+OK go ahead\r\n")
    let inside = self
    return [
      .send(greeting), .serve { inside.answer($0) }, .send(begin), .startTLS(identity),
      .serve { line in
        switch line.split(separator: " ").first.map({ $0.lowercased() }) {
        case "ehlo": .text(inside.capabilities("capabilities_tls"))
        case "capa": .text(inside.capabilities("capa_tls"))
        case "auth": .text(inside.isSMTP ? "235 in\r\n" : "+OK in\r\n")
        case "user", "pass": .text("+OK\r\n")
        case "quit": .close(inside.isSMTP ? "221 bye\r\n" : "+OK bye\r\n")
        default: .text(inside.isSMTP ? "500 no\r\n" : "-ERR no\r\n")
        }
      },
    ]
  }
}

@Suite(
  "Attacks on STARTTLS collected elsewhere",
  .enabled(if: !AttackScript.all.isEmpty, "POSTRIDER_CORPORA names no folder with attacks"))
struct AttackCorpusTests {
  private static let credentials = Credentials(userName: "canary-user", password: Secret("canary-4711"))

  @Test("the client fails closed, and no credential is sent in clear text", arguments: AttackScript.all)
  func attack(attack: AttackScript) async throws {
    if case .word = attack.script { Issue.record("\(attack.name) cannot be read") }
    let certificates = try await Certificates.get()
    let steps = attack.steps(certificates.good)
    let server = try await ScriptedMailServer.start(steps)
    var endpoint = try await MailEndpoint.test(
      attack.isSMTP ? .smtp : .pop3, server, tls: .starttls, answer: .milliseconds(1_500))
    endpoint.caCertificatesPEM = certificates.authority
    let trace = SessionTrace(direction: attack.isSMTP ? .outgoing : .incoming)
    var failure: Failure?
    do {
      let client = try makeClient()
      if attack.isSMTP {
        let session = try await client.openSMTP(endpoint, heloName: "client.example.test", trace: trace)
        try await session.authenticate(Self.credentials, mechanism: .auto)
        session.abort()
      } else {
        let session = try await client.openPOP3(endpoint, trace: trace)
        try await session.authenticate(Self.credentials, mechanism: .auto)
        session.abort()
      }
    } catch let error as Failure {
      failure = error
    }
    // The TLS step passed: from the command that began it on, what was sent is encrypted.
    let version = trace.steps.first { $0.name == .tls && $0.result == .ok }?.serverWords
    let lines = server.connections.flatMap(\.lines)
    let before = lines.prefix { !["stls", "starttls"].contains($0.lowercased()) }
    for line in version == nil ? lines[...] : before {
      #expect(!line.lowercased().hasPrefix("auth") && !line.contains("canary"), "in clear text: \(line)")
    }
    if failure == nil { #expect(version != nil && attack.mayLogIn, "a login without TLS, or after an injection") }
    if !attack.mayLogIn { #expect(failure != nil && version == nil) }
    #expect(failure?.code != .internalError, "\(String(describing: failure))")
    await server.stop()
  }
}
