import CLibPQ
import PostriderCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

extension PostgresConnection {
  /// Runs statements in one round trip; the first error skips the rest and is thrown.
  @discardableResult
  func pipeline(_ statements: [Statement]) throws -> [ResultSet] {
    try pipeline { send in for statement in statements { try send(statement) } }
  }

  /// Runs statements in one round trip as a closure makes them, so that big values need not lie in memory together;
  /// `last` follows them.
  ///
  /// An error that the closure throws is thrown again after the connection was brought back into a known state.
  func pipeline(
    ending last: [Statement] = [], _ produce: (_ send: (Statement) throws -> Void) throws -> Void
  ) throws -> [ResultSet] {
    // In the middle of a transaction a new connection would not be in it.
    let handle = try isInTransaction ? openHandle() : open()
    let before = opening
    if !before.isEmpty { isInTransaction = true }
    opening = []
    guard PQenterPipelineMode(handle) == 1 else { throw lost("the connection is in an unknown state") }
    var sent: [Sent] = []
    var producerError: (any Error)?
    do {
      for statement in before { try send(statement, handle, &sent) }
      try produce { try self.send($0, handle, &sent) }
      for statement in last { try send(statement, handle, &sent) }
    } catch {
      if self.handle == nil { throw error }
      producerError = error
    }
    guard PQpipelineSync(handle) == 1 else { throw lost() }
    try flush(handle, untilEmpty: true)
    var results: [ResultSet] = []
    var failure: PostgresError?
    for entry in sent {
      switch try statementResult(handle, entry.sql) {
      case .success(let result):
        if let name = entry.keeping { kept.insert(name) } else { results.append(result) }
      case .failure(let error): failure = failure ?? error
      case nil: break
      }
    }
    try expectSync(handle)
    guard PQexitPipelineMode(handle) == 1 else { throw lost("the connection is in an unknown state") }
    if let producerError { throw producerError }
    if let failure { throw failure }
    return Array(results.dropFirst(before.count))
  }

  /// Runs one statement.
  @discardableResult
  func query(_ sql: String, _ parameters: [PostgresValue] = []) throws -> ResultSet {
    let results = try pipeline([Statement(sql, parameters)])
    guard let result = results.first else { throw lost("a statement was not answered") }
    return result
  }

  /// What the server was asked to do: run a statement, or keep its plan under a name.
  private struct Sent {
    var sql: String
    var keeping: String?
  }

  private func send(_ statement: Statement, _ handle: OpaquePointer, _ sent: inout [Sent]) throws {
    let name = keepsPlans ? statement.planName : nil
    // What was prepared in this pipeline is kept once it is answered.
    if let name, !kept.contains(name), !sent.contains(where: { $0.keeping == name }) {
      let types = statement.parameters.map(\.typeID)
      guard PQsendPrepare(handle, name, statement.sql, Int32(types.count), types) == 1 else { throw lost() }
      sent.append(Sent(sql: statement.sql, keeping: name))
    }
    try send(statement, named: name, handle)
    sent.append(Sent(sql: statement.sql))
  }

  private func send(_ statement: Statement, named name: String?, _ handle: OpaquePointer) throws {
    let block = try ParameterBlock(statement.parameters)
    let accepted = block.bytes.withUnsafeBufferPointer { bytes in
      let base = UnsafeRawPointer(bytes.baseAddress)?.assumingMemoryBound(to: CChar.self)
      // An empty value needs a pointer too: nil means NULL.
      let values: [UnsafePointer<CChar>?] = block.starts.map { start in start.flatMap { base?.advanced(by: $0) } }
      if let name {
        return PQsendQueryPrepared(
          handle, name, Int32(block.types.count), values, block.lengths, block.formats, 1)
      }
      return PQsendQueryParams(
        handle, statement.sql, Int32(block.types.count), block.types, values, block.lengths, block.formats, 1)
    }
    guard accepted == 1 else { throw lost() }
    // Keeps what libpq buffers small while big values pass through.
    if block.bytes.count > 65_536 { try flush(handle, untilEmpty: true) }
  }

  /// Sends what libpq holds, reading meanwhile so that a server with a full buffer can go on.
  private func flush(_ handle: OpaquePointer, untilEmpty: Bool) throws(StoreError) {
    while true {
      switch PQflush(handle) {
      case 0: return
      case 1:
        guard wait(handle, for: POLLIN | POLLOUT, timeout: patience) else { throw lost("the server stopped reading") }
        guard PQconsumeInput(handle) == 1 else { throw lost() }
      default: throw lost()
      }
    }
  }

  private var patience: Duration { options.statementTimeout + .seconds(5) }

  private func nextResult(_ handle: OpaquePointer) throws(StoreError) -> OpaquePointer? {
    while PQisBusy(handle) == 1 {
      guard wait(handle, for: POLLIN, timeout: patience) else { throw lost("the server stopped answering") }
      guard PQconsumeInput(handle) == 1 else { throw lost() }
    }
    return PQgetResult(handle)
  }

  /// The answer to one statement of a pipeline; `nil` when it was skipped after an error.
  private func statementResult(_ handle: OpaquePointer, _ sql: String) throws -> Result<ResultSet, PostgresError>? {
    var answer: Result<ResultSet, PostgresError>?
    while let result = try nextResult(handle) {
      defer { PQclear(result) }
      switch PQresultStatus(result) {
      case PGRES_TUPLES_OK, PGRES_COMMAND_OK: answer = .success(Self.copy(result))
      case PGRES_PIPELINE_ABORTED: break
      case PGRES_PIPELINE_SYNC: throw lost("the server skipped a statement")
      default:
        if PQstatus(handle) != CONNECTION_OK { throw lost() }
        answer = .failure(Self.error(result, sql))
      }
    }
    return answer
  }

  private func expectSync(_ handle: OpaquePointer) throws(StoreError) {
    guard let result = try nextResult(handle) else { throw lost("the pipeline did not end") }
    defer { PQclear(result) }
    guard PQresultStatus(result) == PGRES_PIPELINE_SYNC else {
      throw PQstatus(handle) == CONNECTION_OK ? lost("the pipeline did not end") : lost()
    }
  }

  static func error(_ result: OpaquePointer, _ sql: String) -> PostgresError {
    func field(_ code: Character) -> String? {
      PQresultErrorField(result, Int32(code.asciiValue ?? 0)).map { String(cString: $0) }
    }
    // C: SQLSTATE, M: primary message, n: constraint (libpq-fe.h, postgres_ext.h).
    return PostgresError(
      sqlState: field("C") ?? "XX000", message: field("M") ?? "no message", constraint: field("n"), statement: sql)
  }

  /// Copies the rows out of libpq.
  static func copy(_ result: OpaquePointer) -> ResultSet {
    var set = ResultSet()
    set.count = Int(PQntuples(result))
    set.columns = Int(PQnfields(result))
    set.affected = PQcmdTuples(result).flatMap { Int(String(cString: $0)) } ?? 0
    set.types = (0..<set.columns).map { PQftype(result, Int32($0)) }
    set.starts.reserveCapacity(set.count * set.columns)
    set.lengths.reserveCapacity(set.count * set.columns)
    for row in 0..<Int32(set.count) {
      for column in 0..<Int32(set.columns) {
        set.starts.append(set.bytes.count)
        if PQgetisnull(result, row, column) == 1 {
          set.lengths.append(-1)
          continue
        }
        let length = PQgetlength(result, row, column)
        set.lengths.append(length)
        let start = UnsafeRawPointer(PQgetvalue(result, row, column))
        set.bytes.append(contentsOf: UnsafeRawBufferPointer(start: start, count: Int(length)))
      }
    }
    return set
  }
}

/// The parameters of one statement in the form libpq takes.
private struct ParameterBlock {
  var types: [Oid] = []
  var starts: [Int?] = []
  var lengths: [Int32] = []
  var formats: [Int32] = []
  var bytes: [UInt8] = []

  init(_ values: [PostgresValue]) throws {
    for value in values {
      let start = bytes.count
      let present = try value.encode(into: &bytes)
      types.append(value.typeID)
      starts.append(present ? start : nil)
      lengths.append(Int32(bytes.count - start))
      formats.append(1)
    }
    // A last octet, so that an empty value at the end points into the block.
    bytes.append(0)
  }
}
