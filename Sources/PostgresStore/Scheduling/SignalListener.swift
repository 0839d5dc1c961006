import Logging
import PostriderCore

/// Listens to the database's announcements on a connection of its own and keeps it alive.
struct SignalListener: Sendable {
  /// How often a silent connection is tried, so that one that died without a word, or whose server is no primary any
  /// more, is noticed.
  private static let probeInterval: Duration = .seconds(5)
  /// The longest wait before the next try while PostgreSQL is away.
  private static let longestRetry: Duration = .seconds(1)
  /// How long the thread waits before it looks whether it was cancelled.
  private static let waitSlice: Duration = .milliseconds(250)

  private let connection: PostgresConnection
  private let logger: Logger

  init(url: ConnectionURL, application: String, connectTimeout: Duration, logger: Logger) {
    connection = PostgresConnection(
      url: url,
      options: PostgresConnection.Options(
        application: "\(application) listen", connectTimeout: connectTimeout, statementTimeout: .seconds(10)))
    self.logger = logger
  }

  /// The announcements. When the reader is so slow that they do not fit the buffer, one `rescan` stands for the rest.
  func signals() -> AsyncStream<ScheduleSignal> {
    let (stream, continuation) = AsyncStream.makeStream(
      of: ScheduleSignal.self, bufferingPolicy: .bufferingOldest(1_024))
    // A task of its own: the stream outlives this call, and ends it when its reader goes away.
    let task = Task {
      await listen(continuation)
      continuation.finish()
    }
    continuation.onTermination = { _ in task.cancel() }
    return stream
  }

  private func listen(_ continuation: AsyncStream<ScheduleSignal>.Continuation) async {
    var failures = 0
    while !Task.isCancelled {
      do {
        try await connection.run { db in _ = try db.query("LISTEN \(SchedulePayload.channel)") }
        failures = 0
        try await forward(continuation)
      } catch {
        failures += 1
        if failures == 1 {
          logger.warning("The database's announcements were interrupted", metadata: ["error": "\(error)"])
        }
        let wait = min(Duration.milliseconds(100 * (1 << min(failures, 6))), Self.longestRetry)
        do { try await Task.sleep(for: wait) } catch { break }
      }
    }
    await connection.close()
  }

  private func forward(_ continuation: AsyncStream<ScheduleSignal>.Continuation) async throws {
    // Whatever was announced before LISTEN was not heard.
    var overflowed = Self.overflows(continuation.yield(.rescan))
    var lastHeard = ContinuousClock.now
    while !Task.isCancelled {
      let payloads = try await connection.notifications(timeout: Self.waitSlice)
      if !payloads.isEmpty {
        lastHeard = .now
      } else if ContinuousClock.now - lastHeard > Self.probeInterval {
        let isReadOnly = try await connection.run { db in
          try db.query("SELECT current_setting('transaction_read_only')::boolean").map { try $0.bool() } == [true]
        }
        // Nothing is announced by a server that is no primary.
        if isReadOnly {
          await connection.close()
          throw StoreError.unavailable(reason: "the server is read-only")
        }
        lastHeard = .now
      }
      for payload in payloads where !overflowed {
        overflowed = Self.overflows(continuation.yield(SchedulePayload.parse(payload)))
      }
      if overflowed { overflowed = Self.overflows(continuation.yield(.rescan)) }
    }
  }

  private static func overflows(_ result: AsyncStream<ScheduleSignal>.Continuation.YieldResult) -> Bool {
    if case .dropped = result { return true }
    return false
  }
}
