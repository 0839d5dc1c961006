import Foundation
import MailProtocols
import PostriderTesting
import Testing

/// What comes after the login in one of curl's own tests: messages fetched, listed, deleted or handed over. Every case
/// with such commands under `curl-dialogues` in the folder that `POSTRIDER_CORPORA` names.
struct CurlTransfer: Sendable, CustomTestStringConvertible {
  let number: Int
  let name: String
  let isSMTP: Bool
  /// What curl says after the login, up to QUIT, without the greeting commands.
  let commands: [String]
  /// Whether curl ends without an error.
  let passes: Bool
  /// What the server sends for RETR or TOP, dots stuffed, without its end.
  let wire: String
  /// What has to arrive of it; `nil` where curl compares nothing.
  let content: String?
  /// What is handed over.
  let message: String
  /// What the server has to get of it, its end included.
  let upload: String
  private let replies: [String: String]
  private let extensions: [String]

  var testDescription: String { "test\(number): \(name)" }

  /// Commands that a poll or a sending session has.
  static let ours = ["RETR", "TOP ", "UIDL", "DELE", "MAIL", "RCPT", "DATA"]

  static let all: [CurlTransfer] = CurlFile.all.compactMap { CurlTransfer($0) }

  private init?(_ file: CurlFile) {
    let server = file.text("server")
    guard server == "pop3" || server == "smtp" else { return nil }
    isSMTP = server == "smtp"
    number = file.number
    name = file.text("name")
    passes = file.text("errorcode").isEmpty
    // One connection is enough of those that make two.
    commands = Array(
      file.lines("protocol").drop { !Self.after.contains(String($0.prefix(4)).uppercased()) }.prefix { $0 != "QUIT" })
    guard !commands.isEmpty, !file.text("server").contains("http-proxy") else { return nil }
    wire = file.section("data")
    let check = file.section("datacheck")
    content = check.isEmpty ? (wire.isEmpty ? nil : wire) : check
    upload = file.section("upload")
    let input = file.section("stdin").isEmpty ? file.section("file") : file.section("stdin")
    // Where curl composes the message: what arrives of it is what was handed over.
    let isComposed = file.text("command").contains("-F ") || input.isEmpty
    message = isComposed ? Self.unstuffed(upload) : input
    var replies: [String: String] = [:]
    var extensions: [String] = []
    for line in file.lines("servercmd") {
      let words = line.split(separator: " ", maxSplits: 2).map(String.init)
      if words.first == "CAPA" {
        // `CAPA TOP USER`, and `CAPA "SIZE 32"`.
        let list = line.dropFirst("CAPA ".count)
        extensions =
          list.hasPrefix("\"") ? [String(list.dropFirst().dropLast())] : list.split(separator: " ").map(String.init)
      }
      if words.first == "REPLY", words.count == 3 { replies[words[1]] = words[2] + "\r\n" }
    }
    self.replies = replies
    self.extensions = extensions
  }

  private static let after = [
    "RETR", "MAIL", "LIST", "DELE", "NOOP", "STAT", "RSET", "UIDL", "TOP ", "VRFY", "EXPN", "HELP",
  ]

  private static func unstuffed(_ upload: String) -> String {
    var lines = upload.components(separatedBy: "\r\n")
    if lines.suffix(2) == [".", ""] { lines.removeLast(2) }
    return lines.map { ($0.hasPrefix(".") ? String($0.dropFirst()) : $0) + "\r\n" }.joined()
  }

  /// The address between `<` and `>` of a command.
  static func address(_ command: String) -> String {
    command.split(separator: "<", maxSplits: 1).last?.split(separator: ">").first.map(String.init) ?? ""
  }

  var numbers: [Int] { commands.compactMap { $0.split(separator: " ").dropFirst().first.flatMap { Int($0) } } }
  var sender: String { commands.first { $0.hasPrefix("MAIL") }.map(Self.address) ?? "" }
  /// Those of the protocol; somebody where curl gets no further than MAIL.
  var recipients: [String] {
    let named = commands.filter { $0.hasPrefix("RCPT") }.map(Self.address)
    return named.isEmpty ? ["recipient@example.com"] : named
  }

  // MARK: The server's side, as curl's answers

  var steps: [ScriptedMailServer.Step] {
    [.send(isSMTP ? "220 curl\r\n" : "+OK curl\r\n"), .serve { isSMTP ? submission($0) : maildrop($0) }]
  }

  private func maildrop(_ line: String) -> ScriptedMailServer.Reply {
    let verb = String(line.prefix { $0 != " " })
    if let reply = replies[verb] { return .text(reply) }
    switch verb {
    case "CAPA": return .text("+OK\r\n" + (extensions + ["USER", "UIDL"]).map { $0 + "\r\n" }.joined() + ".\r\n")
    case "UIDL": return .text("+OK\r\n1 1\r\n2 2\r\n3 4\r\n.\r\n")
    case "RETR", "TOP": return .text("+OK Mail transfer starts\r\n" + wire + ".\r\n")
    case "QUIT": return .close("+OK\r\n")
    default: return .text("+OK\r\n")
    }
  }

  private func submission(_ line: String) -> ScriptedMailServer.Reply {
    // The message itself comes as one line.
    if line.hasSuffix(".\r\n") { return .text("250 OK, stored\r\n") }
    let verb = String(line.prefix { $0 != " " })
    if let reply = replies[verb] { return .text(reply) }
    switch verb {
    case "EHLO":
      let lines = ["curl"] + extensions
      return .text(
        lines.enumerated().map { "250\($0.offset == lines.count - 1 ? " " : "-")\($0.element)\r\n" }.joined())
    case "RCPT": return .text(Self.address(line).contains("@") ? "250 OK\r\n" : "501 Invalid address\r\n")
    case "DATA": return .readMessage("354 Show me the mail\r\n")
    case "QUIT": return .close("221 bye\r\n")
    default: return .text("250 OK\r\n")
    }
  }
}

/// One file of `curl-dialogues`.
struct CurlFile: Sendable {
  let number: Int
  private let whole: String

  static let all: [CurlFile] = {
    guard let root = ProcessInfo.processInfo.environment["POSTRIDER_CORPORA"] else { return [] }
    let folder = root + "/curl-dialogues"
    let files = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    return files.filter { $0.hasSuffix(".xml") }.compactMap { file in
      guard let text = try? String(contentsOfFile: "\(folder)/\(file)", encoding: .utf8) else { return nil }
      return CurlFile(number: Int(file.drop { !$0.isNumber }.prefix { $0.isNumber }) ?? 0, whole: text)
    }.sorted { $0.number < $1.number }
  }()

  /// What stands between the tags of a name, variables replaced, with the line ends that it asks for.
  func section(_ name: String) -> String {
    guard let start = whole.firstRange(of: "<\(name)>") ?? whole.firstRange(of: "<\(name) "),
      let open = whole[whole.index(before: start.upperBound)...].firstIndex(of: ">"),
      let end = whole[open...].firstRange(of: "</\(name)>")
    else { return "" }
    var text = String(whole[whole.index(after: open)..<end.lowerBound])
    if text.hasPrefix("\n") { text.removeFirst() }
    let attributes = whole[start.lowerBound..<open]
    if attributes.contains("nonewline=\"yes\""), text.hasSuffix("\n") { text.removeLast() }
    if attributes.contains("crlf=\"yes\"") { text = text.replacingOccurrences(of: "\n", with: "\r\n") }
    return resolved(text)
  }

  func text(_ name: String) -> String { section(name).trimmingCharacters(in: .whitespacesAndNewlines) }

  func lines(_ name: String) -> [String] {
    section(name).split(whereSeparator: \.isNewline).map(String.init)
  }

  private func resolved(_ given: String) -> String {
    var text = given
    for (name, value) in [("%LT", "<"), ("%GT", ">"), ("%CR", "\r"), ("%SP", " "), ("%TESTNUMBER", "\(number)")] {
      text = text.replacingOccurrences(of: name, with: value)
    }
    while let start = text.firstRange(of: "%hex["), let end = text[start.upperBound...].firstRange(of: "]hex%") {
      let octets = text[start.upperBound..<end.lowerBound].split(separator: "%").compactMap { UInt8($0, radix: 16) }
      text.replaceSubrange(start.lowerBound..<end.upperBound, with: String(decoding: octets, as: UTF8.self))
    }
    while let start = text.firstRange(of: "%repeat["), let end = text[start.upperBound...].firstRange(of: "]%") {
      let parts = text[start.upperBound..<end.lowerBound].components(separatedBy: " x ")
      text.replaceSubrange(
        start.lowerBound..<end.upperBound, with: String(repeating: parts.last ?? "", count: Int(parts[0]) ?? 0))
    }
    return text.replacingOccurrences(of: "%0d", with: "\r").replacingOccurrences(of: "%0a", with: "\n")
  }
}
