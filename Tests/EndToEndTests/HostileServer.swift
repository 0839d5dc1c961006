import Foundation
import PostriderCore
import PostriderTesting

/// A server that nobody should meet, and what has to come of a poll there.
struct HostileServer: Sendable {
  typealias Step = ScriptedMailServer.Step

  var name: String
  var script: [Step]
  /// The failure of the run; `nil` where all is well.
  var code: FailureCode?
  var tls = TLSMode.none
  var mechanism = AuthenticationMechanism.plain
  /// Octets of the one message that has to be stored whole.
  var storedOctets: Int?
  /// Whether headers are asked for first.
  var hasFloor = false

  static let line = String(repeating: "0123456789abcde ", count: 4) + "\r\n"

  private static let greeting = Step.send("+OK ready\r\n")
  private static let capabilities = "+OK\r\nUSER\r\nUIDL\r\nTOP\r\nPIPELINING\r\n.\r\n"

  /// Answers as a server should, up to a command, and then plays the rest.
  private static func upTo(_ command: String, _ rest: Step...) -> [Step] {
    [
      greeting,
      .serve { line in
        if line.hasPrefix(command) { return .next }
        return switch line.prefix(4) {
        case "CAPA": .text(capabilities)
        case "UIDL": .text("+OK\r\n1 one\r\n.\r\n")
        case "TOP ": .text("+OK\r\nSubject: top\r\n\r\n.\r\n")
        case "QUIT": .close("+OK\r\n")
        default: .text("+OK\r\n")
        }
      },
    ] + rest + [
      .serve { line in
        line.hasPrefix("QUIT") ? .close("+OK\r\n") : .text("+OK\r\nSubject: \(line)\r\n\r\nhello\r\n.\r\n")
      }
    ]
  }

  /// A server with one message, which comes in pieces; its size is counted on the way.
  private static func message(_ name: String, _ pieces: [@Sendable (Int) -> String?]) -> HostileServer {
    let octets = pieces.reduce(0) { sum, piece in
      var (sum, number) = (sum, 0)
      while let text = piece(number) {
        sum += text.utf8.count
        number += 1
      }
      return sum
    }
    let steps = [Step.send("+OK\r\n")] + pieces.map { Step.stream($0) } + [.send(".\r\n")]
    var server = HostileServer(name: name, script: upTo("RETR"), code: nil)
    server.script.insert(contentsOf: steps, at: 2)
    server.storedOctets = octets
    return server
  }

  private static func times(_ count: Int, _ text: @escaping @Sendable (Int) -> String) -> @Sendable (Int) -> String? {
    { $0 < count ? text($0) : nil }
  }

  private static func once(_ text: String) -> @Sendable (Int) -> String? { times(1) { _ in text } }

  /// A thousand lines of a listing, from a number on.
  private static func listing(_ page: Int) -> String {
    (1...1_000).map { "\(page * 1_000 + $0) unique-id-of-message-\(page * 1_000 + $0)\r\n" }.joined()
  }

  static let all = dialogues + listings + messages

  static let dialogues = [
    HostileServer(
      name: "endless greeting", script: [.send("+OK "), .flood(String(repeating: "x", count: 1_000))],
      code: .protocolLimit),
    HostileServer(
      name: "endless status line", script: upTo("USER", .send("+OK "), .flood(String(repeating: "x", count: 1_000))),
      code: .protocolLimit),
    HostileServer(
      name: "endless capabilities", script: upTo("CAPA", .send("+OK\r\n"), .flood("X-NEW\r\n")), code: .protocolLimit),
    HostileServer(
      name: "a greeting of 1 octet/s", script: [.drip("+OK ready when you are\r\n", every: .seconds(1))],
      code: .pop3Greeting),
    HostileServer(
      name: "an answer of 1 octet/s", script: upTo("PASS", .drip("+OK come in whenever\r\n", every: .seconds(1))),
      code: .tcpTimeout),
    HostileServer(
      name: "a huge challenge",
      script: [
        greeting, .serve { $0 == "CAPA" ? .text("+OK\r\nSASL LOGIN\r\nUIDL\r\n.\r\n") : .next },
        .send("+ "), .flood(String(repeating: "QUJD", count: 1_000)),
      ], code: .protocolLimit, mechanism: .login),
    HostileServer(
      name: "TLS garbage", script: [.sendBytes([0x16, 3, 3, 0x40, 0] + [UInt8](repeating: 0xA5, count: 20_000))],
      code: .tlsHandshake, tls: .implicit),
    HostileServer(
      name: "TLS records without end",
      script: [.flood("\u{16}\u{3}\u{3}\u{0}\u{10}" + String(repeating: "\0", count: 16))],
      code: .tlsHandshake, tls: .implicit),
    HostileServer(
      name: "octets behind STLS",
      script: [
        greeting, .serve { $0 == "CAPA" ? .text("+OK\r\nSTLS\r\nUIDL\r\n.\r\n") : .next },
        .send("+OK go\r\n+OK injected\r\n"), .serve { _ in .text("+OK\r\n") },
      ], code: .tlsStartTLSInjection, tls: .starttls),
    HostileServer(
      name: "a flood behind STLS",
      script: [
        greeting, .serve { $0 == "CAPA" ? .text("+OK\r\nSTLS\r\nUIDL\r\n.\r\n") : .next }, .send("+OK go\r\n"),
        .flood(line),
      ], code: .tlsStartTLSInjection, tls: .starttls),
  ]

  static let listings = [
    HostileServer(
      name: "a list without end", script: upTo("UIDL", .send("+OK\r\n"), .stream { listing($0) }), code: .protocolLimit),
    HostileServer(
      name: "a list line without end", script: upTo("UIDL", .send("+OK\r\n1 "), .flood("xxxxxxxxxxxxxxxx")),
      code: .protocolLimit),
    HostileServer(
      name: "a list of 1 octet/s",
      script: upTo("UIDL", .send("+OK\r\n"), .drip("1 one\r\n2 two\r\n", every: .seconds(1))),
      code: .tcpTooSlow),
    HostileServer(
      name: "numbers of 2^63", script: upTo("UIDL", .send("+OK\r\n9223372036854775808 a\r\n.\r\n")),
      code: .protocolSyntax),
    // One session takes a few of them; nothing is wrong with the mailbox.
    HostileServer(
      name: "a million unique ids",
      script: upTo("UIDL", .send("+OK\r\n"), .stream { $0 < 1_000 ? listing($0) : nil }, .send(".\r\n")),
      code: nil),
  ]

  static let messages = [
    HostileServer(
      name: "a message without end", script: upTo("RETR", .send("+OK\r\n"), .flood(line)), code: .messageTooLarge),
    HostileServer(
      name: "a message of 1 octet/s", script: upTo("RETR", .send("+OK\r\n"), .drip(line, every: .seconds(1))),
      code: .tcpTooSlow),
    HostileServer(
      name: "a header without end", script: upTo("TOP", .send("+OK\r\n"), .flood("X: " + line)), code: .protocolLimit,
      hasFloor: true),
    HostileServer(
      name: "a wrong size", script: upTo("RETR", .send("+OK 5 octets\r\n" + line + ".\r\n")),
      storedOctets: line.utf8.count),
    HostileServer(
      name: "a size of 2^63", script: upTo("RETR", .send("+OK 9223372036854775808 octets\r\n" + line + ".\r\n")),
      storedOctets: line.utf8.count),
    message(
      "a header of 50 MB",
      [times(50_000) { _ in "X-Padding: " + String(repeating: "p", count: 985) + "\r\n" }, once("\r\nbody\r\n")]),
    message(
      "a header field of 50 MB",
      [once("Subject: "), times(50_000) { _ in String(repeating: "s", count: 1_000) }, once("\r\n\r\nbody\r\n")]),
    message(
      "100,000 headers",
      [times(1_000) { page in (0..<100).map { "X-\(page)-\($0): y\r\n" }.joined() }, once("\r\nbody\r\n")]),
    message(
      "nested 2,000 deep",
      [
        times(2_000) { "Content-Type: multipart/mixed; boundary=b\($0)\r\n\r\n--b\($0)\r\n" },
        once("Content-Type: text/plain\r\n\r\ndeep\r\n"),
      ]),
    message(
      "messages nested 2,000 deep",
      [times(2_000) { _ in "Content-Type: message/rfc822\r\n\r\n" }, once("Subject: s\r\n\r\nx\r\n")]),
    message(
      "100,000 parts",
      [
        once("Content-Type: multipart/mixed; boundary=b\r\n\r\n"),
        times(1_000) { page in (0..<100).map { "--b\r\nContent-Type: image/png\r\n\r\n\(page)-\($0)\r\n" }.joined() },
        once("--b--\r\n"),
      ]),
    message(
      "40 attachments of 1 MB",
      [
        once("Content-Type: multipart/mixed; boundary=b\r\n\r\n"),
        times(40_000) { piece in
          (piece % 1_000 == 0
            ? "--b\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n" : "")
            + String(repeating: "QUJDREVGR0hJSktMTU5P", count: 50) + "\r\n"
        },
        once("--b--\r\n"),
      ]),
  ]
}
