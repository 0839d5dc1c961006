import CLibPQ
import FoundationEssentials
import PostriderCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// One connection of libpq: an actor that runs on a thread of its own, so its calls may block.
///
/// It opens itself when first used and again after it was lost; a call that finds the connection dead before anything
/// was sent opens a new one and goes on. The handle never leaves the actor.
actor PostgresConnection {
  /// How a connection behaves.
  struct Options: Sendable {
    /// Shown in `pg_stat_activity`.
    var application: String
    /// To establish a connection.
    var connectTimeout: Duration
    /// For each statement, on the server; a connection silent for longer is given up.
    var statementTimeout: Duration
  }

  nonisolated private let executor: ThreadExecutor
  nonisolated var unownedExecutor: UnownedSerialExecutor { executor.asUnownedSerialExecutor() }

  private let url: ConnectionURL
  let options: Options
  /// `PGconn`; `nil` while there is no connection.
  var handle: OpaquePointer?
  /// BEGIN and the scope, sent together with the first statement of a transaction.
  var opening: [Statement] = []
  /// Whether BEGIN was sent; from then on only this connection will do.
  var isInTransaction = false
  /// The names of the statements whose plans the server keeps for this connection.
  var kept: Set<String> = []
  /// Off once a transaction pooler was found in between: each transaction may meet another server's connection there.
  var keepsPlans = true
  /// Whether the body of ``transaction(_:_:)`` has committed by itself.
  var committed = false

  init(url: ConnectionURL, options: Options) {
    self.url = url
    self.options = options
    executor = ThreadExecutor(name: options.application)
  }

  isolated deinit {
    if let handle { PQfinish(handle) }
    executor.stop()
  }

  /// Runs a closure on the connection's thread.
  func run<T: Sendable>(_ body: @Sendable (isolated PostgresConnection) throws -> T) rethrows -> T { try body(self) }

  /// Closes the connection; the next use opens a new one.
  func close() {
    if let handle { PQfinish(handle) }
    handle = nil
    kept = []
  }

  /// The open connection; opens one where there is none or it died while idle.
  func open() throws(StoreError) -> OpaquePointer {
    if let handle {
      if isAlive(handle) { return handle }
      close()
    }
    try url.check()
    let parameters = url.parameters(application: options.application, connectTimeout: options.connectTimeout)
    let keywords = parameters.map { strdup($0.0) }
    let values = parameters.map { strdup($0.1) }
    defer { for pointer in keywords + values { free(pointer) } }
    let connection = PQconnectdbParams(
      keywords.map { UnsafePointer($0) } + [nil], values.map { UnsafePointer($0) } + [nil], 1)
    guard let connection, PQstatus(connection) == CONNECTION_OK else {
      let reason = Self.message(connection)
      if let connection { PQfinish(connection) }
      throw .unavailable(reason: reason)
    }
    // Notices go to standard error otherwise.
    PQsetNoticeProcessor(connection, { _, _ in }, nil)
    PQsetnonblocking(connection, 1)
    handle = connection
    return connection
  }

  /// The connection as it is; throws when it was lost.
  func openHandle() throws(StoreError) -> OpaquePointer {
    guard let handle else { throw .unavailable(reason: "the connection was lost in the middle of a transaction") }
    return handle
  }

  /// Whether an idle connection still stands: an end of stream is noticed here, before anything is sent.
  private func isAlive(_ handle: OpaquePointer) -> Bool {
    guard PQstatus(handle) == CONNECTION_OK else { return false }
    var descriptor = pollfd(fd: PQsocket(handle), events: Int16(POLLIN), revents: 0)
    guard poll(&descriptor, 1, 0) > 0 else { return true }
    return PQconsumeInput(handle) == 1 && PQstatus(handle) == CONNECTION_OK
      && Int32(descriptor.revents) & (POLLHUP | POLLERR) == 0
  }

  /// Gives the connection up and says why.
  func lost(_ reason: String? = nil) -> StoreError {
    let text = reason ?? Self.message(handle)
    close()
    return .unavailable(reason: text)
  }

  /// libpq's last message in one line; never holds a password.
  static func message(_ handle: OpaquePointer?) -> String {
    guard let handle, let text = PQerrorMessage(handle) else { return "out of memory" }
    let line = String(cString: text).split(whereSeparator: \.isNewline).joined(separator: "; ")
    return line.isEmpty ? "the connection was lost" : line
  }

  /// Waits until the socket is ready; `false` when nothing happened in time.
  func wait(_ handle: OpaquePointer, for events: Int32, timeout: Duration) -> Bool {
    var descriptor = pollfd(fd: PQsocket(handle), events: Int16(events), revents: 0)
    let deadline = ContinuousClock.now + timeout
    while true {
      let left = max(0, (deadline - .now).wholeMilliseconds)
      let ready = poll(&descriptor, 1, Int32(clamping: left))
      if ready > 0 { return true }
      if ready == 0 { return false }
      if errno != EINTR { return false }
    }
  }
}
