import Foundation
import MailProtocols
import PostriderCore
import PostriderTesting
import Synchronization
import Testing

/// One login of curl's own tests: what its server answers, what its client says, and how that ends. Every case about
/// logging in under `curl-dialogues` in the folder that `POSTRIDER_CORPORA` names.
struct CurlDialogue: Sendable, CustomTestStringConvertible {
  let number: Int
  let name: String
  let isSMTP: Bool
  private let replies: [String: String]
  private let capabilities: [String]
  let mechanisms: [String]
  private let command: String
  /// The lines that curl sends to log in, a first message split from its command.
  let expected: [String]
  /// Whether curl ends up logged in, or goes on without.
  let passes: Bool
  /// Whether curl sends the first message with the command.
  private let isInitial: Bool

  var testDescription: String { "test\(number): \(name)" }

  static let all: [CurlDialogue] = {
    guard let root = ProcessInfo.processInfo.environment["POSTRIDER_CORPORA"] else { return [] }
    let folder = root + "/curl-dialogues"
    let files = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
    return files.filter { $0.hasSuffix(".xml") }.compactMap { file in
      guard let text = try? String(contentsOfFile: "\(folder)/\(file)", encoding: .utf8) else { return nil }
      return CurlDialogue(text, number: Int(file.drop { !$0.isNumber }.prefix { $0.isNumber }) ?? 0)
    }.sorted { $0.number < $1.number }
  }()

  /// Reads a case; `nil` when it is not about logging in.
  private init?(_ text: String, number: Int) {
    func section(_ name: String) -> String {
      guard let start = text.firstRange(of: "<\(name)>") ?? text.firstRange(of: "<\(name) "),
        let open = text[text.index(before: start.upperBound)...].firstIndex(of: ">"),
        let end = text[open...].firstRange(of: "</\(name)>")
      else { return "" }
      return String(text[text.index(after: open)..<end.lowerBound])
    }
    let server = section("server").trimmingCharacters(in: .whitespacesAndNewlines)
    guard server == "pop3" || server == "smtp" else { return nil }
    isSMTP = server == "smtp"
    self.number = number
    name = section("name").trimmingCharacters(in: .whitespacesAndNewlines)
    // One connection is enough of those that make two.
    let commands = section("command").split(separator: "\n", omittingEmptySubsequences: true).map(String.init)
    command = commands.first.map { $0.components(separatedBy: " -: ")[0] } ?? ""
    isInitial = command.contains("--sasl-ir")
    var replies: [String: String] = [:]
    var capabilities: [String] = []
    var mechanisms: [String] = []
    for line in section("servercmd").split(separator: "\n").map(String.init) {
      let words = line.split(separator: " ", maxSplits: 1).map(String.init)
      let rest = words.count > 1 ? words[1] : ""
      switch words.first {
      case "AUTH": mechanisms = rest.split(separator: " ").map(String.init)
      case "CAPA", "EHLO": capabilities = rest.split(separator: " ").map(String.init)
      case "REPLY", "REPLYLF":
        let key: String
        let answer: String
        if rest.hasPrefix("\"") {
          let parts = rest.dropFirst().split(separator: "\"", maxSplits: 1).map(String.init)
          (key, answer) = (parts[0], parts.count > 1 ? parts[1] : "")
        } else if let end = rest.firstRange(of: "]b64%"), rest.hasPrefix("%b64[") {
          (key, answer) = (String(rest[..<end.upperBound]), String(rest[end.upperBound...]))
        } else {
          let parts = rest.split(separator: " ", maxSplits: 1).map(String.init)
          (key, answer) = (parts[0], parts.count > 1 ? parts[1] : "")
        }
        let ending = words[0] == "REPLYLF" ? "\n" : "\r\n"
        replies[key] =
          answer.trimmingCharacters(in: .whitespaces).replacingOccurrences(of: "\\r\\n", with: "\r\n") + ending
      default: break
      }
    }
    self.replies = replies
    self.capabilities = capabilities
    self.mechanisms = mechanisms
    let lines = section("protocol").split(separator: "\n").map(String.init)
      .prefix { !Self.afterwards.contains(String($0.prefix(4))) }
      .filter { !["CAPA", "EHLO", "HELO"].contains($0.prefix(4)) }
    expected = lines.flatMap { Self.split($0) }
    // 67: the login was refused; 3 and 26: nothing was sent. Others are about what comes later.
    passes = !["67", "3", "26"].contains(section("errorcode").trimmingCharacters(in: .whitespacesAndNewlines))
    let keywords = section("keywords").split(separator: "\n")
    let isLogin =
      keywords.contains { $0.hasPrefix("SASL") || $0 == "APOP" } || expected.contains { $0.hasPrefix("PASS") }
      || [480, 894, 939, 940].contains(number)
    guard isLogin, !text.contains("http-proxy") else { return nil }
  }

  /// The commands that come once the login is over.
  private static let afterwards = [
    "RETR", "MAIL", "LIST", "QUIT", "DELE", "NOOP", "STAT", "RSET", "UIDL", "TOP ", "VRFY", "EXPN", "HELP",
  ]

  /// A command and the message behind it, as two.
  static func split(_ line: String) -> [String] {
    let words = line.split(separator: " ", maxSplits: 2).map(String.init)
    return words.count == 3 && words[0] == "AUTH" ? ["AUTH \(words[1])", words[2]] : [line]
  }

  /// A line without curl's variables; NTLM messages by their number alone, as their parts are each client's own choice.
  static func resolved(_ line: String, port: Int) -> String {
    var text = line
    for (name, value) in [
      ("%POP3PORT", "\(port)"), ("%SMTPPORT", "\(port)"), ("%LT", "<"), ("%GT", ">"), ("%HOSTIP", "127.0.0.1"),
    ] {
      text = text.replacingOccurrences(of: name, with: value)
    }
    while let start = text.firstRange(of: "%b64["), let end = text[start.upperBound...].firstRange(of: "]b64%") {
      let octets = Self.unescaped(text[start.upperBound..<end.lowerBound])
      text.replaceSubrange(start.lowerBound..<end.upperBound, with: Data(octets).base64EncodedString())
    }
    let octets = Data(base64Encoded: text) ?? Data()
    if octets.count > 8, octets.starts(with: Data("NTLMSSP\0".utf8)) { return "NTLM message \(octets[8])" }
    return text
  }

  private static func unescaped(_ text: Substring) -> [UInt8] {
    var octets: [UInt8] = []
    var rest = Substring(text).utf8[...]
    while let first = rest.first {
      rest = rest.dropFirst()
      if first == UInt8(ascii: "%"), let value = UInt8(String(Substring(rest.prefix(2))), radix: 16) {
        octets.append(value)
        rest = rest.dropFirst(2)
      } else {
        octets.append(first)
      }
    }
    return octets
  }

  // MARK: The client's side

  private func option(_ name: String) -> String? {
    guard let found = command.firstRange(of: name + " ") else { return nil }
    return command[found.upperBound...].split(separator: " ").first.map { $0.trimmingCharacters(in: ["\"", "'"]) }
  }

  var credentials: Credentials {
    var user = option("-u") ?? ""
    if user.isEmpty, let start = command.firstRange(of: "://"), let at = command.firstIndex(of: "@") {
      user = String(command[start.upperBound..<at].prefix { $0 != ";" })
    }
    // A file names the user of this one; what it holds is what matters.
    if number == 480 { user = "user%0d%0aname:secret" }
    let parts = user.split(separator: ":", maxSplits: 1).map { String(decoding: Self.unescaped($0), as: UTF8.self) }
    if let token = option("--oauth2-bearer") {
      return Credentials(userName: parts.first ?? "", accessToken: Secret(token))
    }
    return Credentials(
      userName: parts.first ?? "", password: Secret(parts.count > 1 ? parts[1] : ""),
      authorizationIdentity: option("--sasl-authzid"))
  }

  var setting: AuthenticationMechanism {
    if mechanisms.first == "NTLM" { return .ntlm }
    if option("--login-options") == "AUTH=XOAUTH2" { return .xoauth2 }
    // curl sends a password in the clear without being told to; here a profile has to say so.
    guard credentials.password != nil, let first = expected.first?.uppercased() else { return .auto }
    return first.hasPrefix("USER") || first == "AUTH PLAIN" ? .plain : first == "AUTH LOGIN" ? .login : .auto
  }

  // MARK: The server's side

  /// Answers as curl's server does. Where curl sends the first message with the command and we do not, the server asks
  /// for it: both ways are the protocol's.
  func steps(port: @escaping @Sendable () -> Int) -> [ScriptedMailServer.Step] {
    let dialogue = self
    let waiting = Mutex(false)
    let welcome = replies["welcome"].map { Self.resolved($0, port: 0) }
    return [
      .send(
        welcome ?? (isSMTP ? "220 curl ESMTP server ready to serve\r\n" : "+OK curl POP3 server ready to serve\r\n")),
      .serve { line in
        if dialogue.isInitial, line.hasPrefix("AUTH"), Self.split(line).count == 1 {
          waiting.withLock { $0 = true }
          return .text(dialogue.isSMTP ? "334 \r\n" : "+ \r\n")
        }
        let wasAsked = waiting.withLock { was in
          defer { was = false }
          return was
        }
        return dialogue.answer(wasAsked ? "AUTH" : line, port: port())
      },
    ]
  }

  private func answer(_ line: String, port: Int) -> ScriptedMailServer.Reply {
    let known = Self.resolved(line, port: port)
    let command = line.split(separator: " ").first.map(String.init) ?? ""
    let custom =
      replies.first { Self.resolved($0.key, port: port) == known }?.value
      ?? Self.split(line).first.flatMap { replies[$0] } ?? replies[command]
    if let custom { return .text(Self.resolvedAnswer(custom, port: port)) }
    let no = isSMTP ? "500 Unrecognized command\r\n" : "-ERR Unrecognized command\r\n"
    switch command {
    case "CAPA":
      let list =
        capabilities.filter { $0 != "APOP" } + (mechanisms.isEmpty ? [] : ["SASL " + mechanisms.joined(separator: " ")])
      return .text(list.isEmpty ? no : "+OK\r\n" + list.map { $0 + "\r\n" }.joined() + ".\r\n")
    case "EHLO":
      let list = ["curl"] + capabilities + (mechanisms.isEmpty ? [] : ["AUTH " + mechanisms.joined(separator: " ")])
      return .text(
        list.enumerated().map { "250\($0.offset == list.count - 1 ? " " : "-")\($0.element)\r\n" }.joined())
    case "HELO": return .text("250 curl\r\n")
    case "USER" where !isSMTP: return .text("+OK\r\n")
    case "PASS" where !isSMTP: return .text("+OK Login successful\r\n")
    case "QUIT": return .close(isSMTP ? "221 bye\r\n" : "+OK bye\r\n")
    default: return .text(no)
    }
  }

  private static func resolvedAnswer(_ text: String, port: Int) -> String {
    // The variables of an answer may stand anywhere in it.
    var text = text
    while let start = text.firstRange(of: "%b64["), let end = text[start.upperBound...].firstRange(of: "]b64%") {
      let octets = unescaped(text[start.upperBound..<end.lowerBound])
      text.replaceSubrange(start.lowerBound..<end.upperBound, with: Data(octets).base64EncodedString())
    }
    return text
  }
}
