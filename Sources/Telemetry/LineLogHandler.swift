import FoundationEssentials
import Logging
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// How log lines look.
public enum LogFormat: String, Sendable, CaseIterable {
  /// One JSON object a line, for machines.
  case json
  /// One line of text, for people.
  case text
}

/// Writes log lines to standard error, or wherever `write` puts them.
///
/// A line is one `write`, so lines of several processes on one pipe do not mix. Values are escaped: nothing that a mail
/// server says can begin a new line or move a terminal's cursor.
public struct LineLogHandler: LogHandler {
  /// What each line carries besides its own metadata.
  public var metadata: Logger.Metadata = [:]
  /// Adds metadata of the present task.
  public var metadataProvider: Logger.MetadataProvider?
  /// The least level that is written.
  public var logLevel: Logger.Level

  private let label: String
  private let format: LogFormat
  private let write: @Sendable (String) -> Void

  /// A handler for one label.
  public init(
    label: String, format: LogFormat, level: Logger.Level, metadataProvider: Logger.MetadataProvider? = nil,
    write: @escaping @Sendable (String) -> Void = LineLogHandler.writeToStandardError
  ) {
    self.label = label
    self.format = format
    self.logLevel = level
    self.metadataProvider = metadataProvider
    self.write = write
  }

  /// Makes every `Logger` of the process write this way. Once, at the start of the program.
  ///
  /// - Parameter levels: Levels of single labels (`postrider.store`), over `level`.
  public static func bootstrap(format: LogFormat, level: Logger.Level, levels: [String: Logger.Level] = [:]) {
    LoggingSystem.bootstrap { LineLogHandler(label: $0, format: format, level: levels[$0] ?? level) }
  }

  /// Metadata of every line.
  public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  /// Writes a line.
  public func log(event: LogEvent) {
    var all = metadata
    if let provided = metadataProvider?.get() { all.merge(provided) { _, new in new } }
    if let own = event.metadata { all.merge(own) { _, new in new } }
    if let error = event.error, all[LogKeys.error] == nil { all[LogKeys.error] = "\(error)" }
    let time = Date.now.formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: true))
    switch format {
    case .json: write(json(time, event, all))
    case .text: write(text(time, event, all))
    }
  }

  private func json(_ time: String, _ event: LogEvent, _ metadata: Logger.Metadata) -> String {
    var line = "{\"time\":\"\(time)\",\"level\":\"\(event.level.rawValue)\",\"logger\":\(Self.quoted(label))"
    line += ",\"message\":\(Self.quoted(event.message.description))"
    for (key, value) in metadata.sorted(by: { $0.key < $1.key }) {
      // A key of the line itself is never overwritten.
      let name = ["time", "level", "logger", "message"].contains(key) ? "metadata.\(key)" : key
      line += ",\(Self.quoted(name)):\(Self.json(value))"
    }
    return line + "}\n"
  }

  private static func json(_ value: Logger.MetadataValue) -> String {
    switch value {
    case .string(let text): quoted(text)
    case .stringConvertible(let value): quoted(value.description)
    case .array(let values): "[" + values.map(json).joined(separator: ",") + "]"
    case .dictionary(let values):
      "{" + values.sorted { $0.key < $1.key }.map { "\(quoted($0.key)):\(json($0.value))" }.joined(separator: ",") + "}"
    }
  }

  private func text(_ time: String, _ event: LogEvent, _ metadata: Logger.Metadata) -> String {
    let level = event.level.rawValue.uppercased()
    let padding = String(repeating: " ", count: max(0, 8 - level.count))
    var line = "\(time) \(level)\(padding) \(Self.escaped(event.message.description))"
    for (key, value) in metadata.sorted(by: { $0.key < $1.key }) {
      let text = value.description
      let isPlain = !text.isEmpty && !text.unicodeScalars.contains { $0 == " " || $0 == "\"" || $0 == "=" }
      line += " \(Self.escaped(key))=\(isPlain ? Self.escaped(text) : Self.quoted(text))"
    }
    return line + "\n"
  }

  /// A JSON string.
  static func quoted(_ text: String) -> String { "\"" + escaped(text, quotes: true) + "\"" }

  private static func escaped(_ text: String, quotes: Bool = false) -> String {
    var result = ""
    for scalar in text.unicodeScalars {
      switch scalar.value {
      case 0x22 where quotes: result += "\\\""
      case 0x5C where quotes: result += "\\\\"
      case 0x0A: result += "\\n"
      case 0x0D: result += "\\r"
      case 0x09: result += "\\t"
      case 0..<0x20, 0x7F..<0xA0, 0x200E...0x200F, 0x2028...0x202E, 0x2066...0x2069:
        let digits = String(scalar.value, radix: 16)
        result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }

  /// Writes a line to standard error with one system call, as far as the system takes it at once.
  public static let writeToStandardError: @Sendable (String) -> Void = { line in
    var line = line
    line.withUTF8 { bytes in
      var written = 0
      while written < bytes.count {
        guard let base = bytes.baseAddress else { return }
        #if canImport(Glibc)
          let count = Glibc.write(2, base + written, bytes.count - written)
        #elseif canImport(Musl)
          let count = Musl.write(2, base + written, bytes.count - written)
        #else
          let count = Darwin.write(2, base + written, bytes.count - written)
        #endif
        if count < 0 && errno == EINTR { continue }
        // Nobody can be told that the log is gone.
        if count <= 0 { return }
        written += count
      }
    }
  }
}
