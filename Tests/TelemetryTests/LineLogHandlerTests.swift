import FoundationEssentials
import Logging
import PostriderCore
import Synchronization
import Testing

@testable import Telemetry

@Suite("Log lines")
struct LineLogHandlerTests {
  final class Lines: Sendable {
    let all = Mutex<[String]>([])
    func logger(_ format: LogFormat, _ level: Logger.Level = .info) -> Logger {
      Logger(label: "postrider.test") { label in
        LineLogHandler(label: label, format: format, level: level) { line in self.all.withLock { $0.append(line) } }
      }
    }
    var lines: [String] { all.withLock { $0 } }
  }

  let lines = Lines()

  struct Line: Decodable {
    let time, level, logger, message: String
    let error: String?
    let job: String?
    let hidden: String?

    enum CodingKeys: String, CodingKey {
      case time, level, logger, message, error
      case job = "job.id"
      case hidden = "metadata.level"
    }
  }

  @Test("JSON: one object a line, whatever the values hold")
  func json() throws {
    var logger = lines.logger(.json)
    logger[metadataKey: LogKeys.jobID] = "4711p"
    logger.warning(
      "A poll failed",
      metadata: [LogKeys.error: "said \"no\"\r\n{\"level\":\"x\"}\u{1B}[2J\u{202E}\\", "level": "forged"])
    let text = try #require(lines.lines.first)
    #expect(lines.lines.count == 1)
    #expect(text.hasSuffix("}\n") && text.dropLast().allSatisfy { !$0.isNewline })
    #expect(!text.unicodeScalars.contains("\u{1B}") && !text.unicodeScalars.contains("\u{202E}"))
    let line = try JSONDecoder().decode(Line.self, from: Data(text.utf8))
    #expect(line.message == "A poll failed")
    #expect(line.level == "warning")
    #expect(line.hidden == "forged")
    #expect(line.logger == "postrider.test")
    #expect(line.job == "4711p")
    #expect(line.error == "said \"no\"\r\n{\"level\":\"x\"}\u{1B}[2J\u{202E}\\")
    #expect(try Date(line.time, strategy: Date.ISO8601FormatStyle(includingFractionalSeconds: true)) <= .now)
  }

  @Test("JSON: lists and dictionaries stay what they are")
  func nested() throws {
    lines.logger(.json).info("Nested", metadata: ["list": ["a", "b\n"], "map": ["k": "v"]])
    #expect(lines.lines.first?.contains("\"list\":[\"a\",\"b\\n\"],\"map\":{\"k\":\"v\"}") == true)
  }

  @Test("text: one line, keys sorted, odd values quoted and escaped")
  func text() throws {
    lines.logger(.text).error("Stopped", metadata: ["b": "two words", "a": "1", "c": "x\ny", "d": ""])
    let line = try #require(lines.lines.first)
    #expect(line.hasSuffix("ERROR    Stopped a=1 b=\"two words\" c=x\\ny d=\"\"\n"))
  }

  @Test("levels below the set one are left out")
  func levels() {
    let logger = lines.logger(.text, .notice)
    logger.info("Left out")
    logger.notice("Written")
    #expect(lines.lines.count == 1)
  }

  @Test("a secret prints itself hidden in both formats", arguments: LogFormat.allCases)
  func secrets(_ format: LogFormat) {
    let secret = Secret("hunter2")
    lines.logger(format).info("Login", metadata: ["password": "\(secret)", "p": .stringConvertible(secret)])
    #expect(lines.lines.joined().contains("«secret»"))
    #expect(!lines.lines.joined().contains("hunter2"))
  }
}
