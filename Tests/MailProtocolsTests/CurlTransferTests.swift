import Foundation
import MailProtocols
import PostriderCore
import PostriderTesting
import Testing

@Suite(
  "Messages of curl's own tests, fetched and handed over",
  .enabled(if: !CurlTransfer.all.isEmpty, "POSTRIDER_CORPORA names no folder with dialogues"))
struct CurlTransferTests {
  /// Where we do otherwise, and why. A case here that ends like curl's fails: then the line has to go.
  private static let exceptions: [Int: String] = [
    646: loneLF, 900: loneLF,
    649: "curl's own encoder fails on the way",
    913: "what is larger than the server says it takes is not tried",
    918: "a refused recipient does not keep the message from the others",
    955: noUTF8, 956: noUTF8, 959: noUTF8, 960: noUTF8,
    3215: "delivery reports are asked for only where the server offers DSN",
  ]
  private static let loneLF = "a lone LF becomes CRLF before it leaves; curl lets it be, and adds a line at the end"
  private static let noUTF8 = "what needs SMTPUTF8 is not tried where the server does not offer it"

  private static func isOurs(_ dialogue: CurlTransfer) -> Bool {
    dialogue.commands.contains { CurlTransfer.ours.contains(String($0.prefix(4))) }
  }
  private static let polls = CurlTransfer.all.filter { !$0.isSMTP && isOurs($0) }
  private static let submissions = CurlTransfer.all.filter { $0.isSMTP && isOurs($0) }

  private func endpoint(_ kind: MailEndpoint.ProtocolKind, _ server: ScriptedMailServer) -> MailEndpoint {
    MailEndpoint(
      kind: kind, host: "127.0.0.1", port: server.port, tls: .none, answerTimeout: .seconds(30))
  }

  private func check(_ dialogue: CurlTransfer, _ isSame: Bool, _ what: String) {
    if let reason = Self.exceptions[dialogue.number] {
      #expect(!isSame, "no longer an exception: \(reason)")
    } else {
      #expect(isSame, "\(what)")
    }
  }

  @Test("what is fetched arrives as it does at curl", arguments: polls)
  func poll(dialogue: CurlTransfer) async throws {
    let server = try await ScriptedMailServer.start(dialogue.steps)
    let session = try await makeClient().openPOP3(
      endpoint(.pop3, server), trace: SessionTrace(direction: .incoming))
    defer { session.abort() }
    try await session.authenticate(anna, mechanism: .plain)
    let begin = server.lines.count
    var arrived: String?
    var passes = true
    switch dialogue.commands[0].prefix(4) {
    case "RETR":
      var octets: [UInt8] = []
      _ = try await session.retrieve(dialogue.numbers, maximumOctets: 1_000_000) { _, chunk in
        switch chunk {
        case .octets(let more): octets += more
        case .end: break
        case .refused: passes = false
        }
      }
      arrived = String(decoding: octets, as: UTF8.self)
    case "TOP ":
      arrived = String(decoding: try await session.top(dialogue.numbers[0], lines: 0), as: UTF8.self)
    case "UIDL":
      var text = ""
      _ = try await session.list { entries in for entry in entries { text += "\(entry.number) \(entry.uidl)\r\n" } }
      arrived = text
    default: passes = try await session.delete(dialogue.numbers).isEmpty
    }
    let said = Array(server.lines[begin...])
    try await session.quit()
    await server.stop()
    check(
      dialogue,
      said == dialogue.commands && passes == dialogue.passes && dialogue.content.map { $0 == arrived } ?? true,
      "\(said) instead of \(dialogue.commands); \(String(describing: arrived))")
  }

  private static func withoutSize(_ command: String) -> String {
    command.components(separatedBy: " ").filter { !$0.hasPrefix("SIZE=") }.joined(separator: " ")
  }

  @Test("what is handed over arrives as curl's does", arguments: submissions)
  func submission(dialogue: CurlTransfer) async throws {
    let server = try await ScriptedMailServer.start(dialogue.steps)
    let session = try await makeClient().openSMTP(
      endpoint(.smtp, server), heloName: "client.example.test", trace: SessionTrace(direction: .outgoing))
    defer { session.abort() }
    let begin = server.lines.count
    var isAccepted = false
    var failure: Failure?
    do {
      isAccepted = try await session.send(
        from: dialogue.sender, to: dialogue.recipients, message: Array(dialogue.message.utf8)
      ).isAccepted
    } catch let error as Failure {
      failure = error
    }
    let said = Array(server.lines[begin...])
    if failure == nil { try await session.quit() }
    await server.stop()
    // A size is told wherever it may be; curl does not know that of what it reads from its input.
    let commands = said.filter { !$0.hasSuffix(".\r\n") }.map(Self.withoutSize)
    let theirs = dialogue.commands.map(Self.withoutSize)
    let arrived = said.first { $0.hasSuffix(".\r\n") } ?? ""
    check(
      dialogue,
      commands == theirs && isAccepted == dialogue.passes
        && (!dialogue.passes || dialogue.upload.isEmpty || arrived == dialogue.upload),
      "\(commands) instead of \(theirs); \(arrived.suffix(200)) instead of \(dialogue.upload.suffix(200)); "
        + "\(String(describing: failure))")
    #expect(failure?.code != .internalError && failure?.code != .protocolSyntax)
  }

  @Test("no case is left out unseen")
  func complete() {
    let others = Set(
      CurlTransfer.all.filter { !Self.isOurs($0) }.flatMap { $0.commands.map { $0.prefix(4).uppercased() } })
    // Sizes and counts are not asked for, and addresses are not asked about.
    #expect(others.isSubset(of: ["LIST", "STAT", "NOOP", "RSET", "VRFY", "EXPN", "HELP"]), "\(others)")
    #expect(Self.polls.count >= 15 && Self.submissions.count >= 25, "\(Self.polls.count) \(Self.submissions.count)")
  }
}
