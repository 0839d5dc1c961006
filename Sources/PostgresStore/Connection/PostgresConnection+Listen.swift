import CLibPQ
import PostriderCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

extension PostgresConnection {
  /// Waits for announcements of channels this connection listens to; empty when none came in time.
  ///
  /// Never opens a connection: after a loss it throws, because LISTEN has to be said again.
  func notifications(timeout: Duration) throws(StoreError) -> [String] {
    guard let handle else { throw .unavailable(reason: "the connection was lost") }
    var payloads = pending(handle)
    if payloads.isEmpty, wait(handle, for: POLLIN, timeout: timeout) {
      guard PQconsumeInput(handle) == 1, PQstatus(handle) == CONNECTION_OK else { throw lost() }
      payloads = pending(handle)
    }
    return payloads
  }

  private func pending(_ handle: OpaquePointer) -> [String] {
    var payloads: [String] = []
    while let notification = PQnotifies(handle) {
      payloads.append(String(cString: notification.pointee.extra))
      PQfreemem(notification)
    }
    return payloads
  }

  /// Runs SQL text with several statements, as migrations are written. Not for values.
  func script(_ sql: String) throws {
    let handle = try open()
    guard PQsendQuery(handle, sql) == 1 else { throw lost() }
    var failure: PostgresError?
    // Migrations may take longer than a statement of everyday work; the keepalives find a dead server.
    while let result = PQgetResult(handle) {
      defer { PQclear(result) }
      switch PQresultStatus(result) {
      case PGRES_TUPLES_OK, PGRES_COMMAND_OK, PGRES_EMPTY_QUERY: break
      default: failure = failure ?? Self.error(result, "script")
      }
    }
    if PQstatus(handle) != CONNECTION_OK { throw lost() }
    if let failure { throw failure }
  }
}
