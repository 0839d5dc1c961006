import Logging

/// The parts of a process that log with levels of their own. Lines are of the logger `postrider.<part>`.
enum LogPart: String, CaseIterable, Sendable {
  /// Claims, sessions, leases.
  case worker
  /// Leadership, due work, upkeep of the queue.
  case scheduler
  /// Requests.
  case api
  /// Probes and metrics.
  case probes
  /// PostgreSQL.
  case store
  /// Redis.
  case queue
  /// Conversations with mail servers.
  case mail
  /// Start and stop of the process.
  case process

  /// The label of its loggers.
  var label: String { "postrider.\(rawValue)" }

  /// A logger of it.
  var logger: Logger { Logger(label: label) }

  /// The levels of `store=debug,queue=warning` by label; `nil` when a part or a level does not exist.
  static func levels(_ text: String) -> [String: Logger.Level]? {
    var levels: [String: Logger.Level] = [:]
    for item in text.split(separator: ",") {
      let words = item.split(separator: "=", omittingEmptySubsequences: false).map { $0.filter { !$0.isWhitespace } }
      guard words.count == 2, let part = LogPart(rawValue: words[0]), let level = Logger.Level(rawValue: words[1]),
        level != .critical
      else { return nil }
      levels[part.label] = level
    }
    return levels
  }
}
