import FoundationEssentials
import PostriderCore

/// What became of the stored secrets.
public struct RotationReport: Hashable, Sendable, Codable {
  /// Secrets that were encrypted anew, or would have been.
  public var changed = 0
  /// Secrets under the first key already.
  public var kept = 0
  /// How many could not be read, by the id of their key; `""` for what this program did not write. They stay as they are.
  public var unreadable: [String: Int] = [:]

  /// Nothing yet.
  public init() {}
}

/// Encrypts stored secrets anew with the first key of a ring, while everything goes on working.
///
/// A secret is replaced in its row, some at a time, each batch in a transaction of its own: it can be stopped and begun
/// again at any moment. Nothing else of a row changes, so that no session, cache or reader notices.
public struct SecretRotation: Sendable {
  private let connection: PostgresConnection
  private let ring: KeyRing
  private let batch: Int

  /// Over one connection, by the libpq URI that the processes use.
  ///
  /// - Parameters:
  ///   - ring: its first key encrypts from now on; it must hold the keys of before.
  ///   - batch: rows of a transaction, 1 and up.
  public init(url: String, ring: KeyRing, batch: Int = 200) {
    self.ring = ring
    self.batch = max(1, batch)
    connection = PostgresConnection(
      url: ConnectionURL(url),
      options: PostgresConnection.Options(
        application: "postrider keys", connectTimeout: .seconds(10), statementTimeout: .seconds(30)))
  }

  /// Encrypts anew what is not under the first key. Throws ``StoreError``.
  ///
  /// - Parameters:
  ///   - dryRun: only counts.
  ///   - progress: told after each batch.
  public func rotate(
    dryRun: Bool = false, progress: @Sendable (RotationReport) -> Void = { _ in }
  ) async throws -> RotationReport {
    do {
      let report = try await rotateAll(dryRun, progress)
      await connection.close()
      return report
    } catch {
      await connection.close()
      throw PostgresError.storeError(error)
    }
  }

  private func rotateAll(_ dryRun: Bool, _ progress: @Sendable (RotationReport) -> Void) async throws -> RotationReport
  {
    let organizations: [OrganizationID] = try await connection.transaction(.worker) { db in
      try db.query("SELECT id FROM organization ORDER BY id").map { try $0.id() }
    }
    var report = RotationReport()
    for organization in organizations {
      for column in SealedColumn.all {
        var last = Int64.min
        while true {
          try Task.checkCancellation()
          let part = try await connection.transaction(.api(organization, owner: nil)) { [last] db in
            try db.rotate(column, after: last, limit: batch, ring, dryRun)
          }
          guard let end = part.last else { break }
          last = end
          report.changed += part.changed
          report.kept += part.kept
          report.unreadable.merge(part.unreadable, uniquingKeysWith: +)
          progress(report)
        }
      }
    }
    return report
  }
}

private struct RotatedBatch: Sendable {
  var last: Int64?
  var changed = 0
  var kept = 0
  var unreadable: [String: Int] = [:]
}

extension PostgresConnection {
  /// The next rows of a column. They are locked in order of their number, as every writer locks them.
  fileprivate func rotate(
    _ column: SealedColumn, after last: Int64, limit: Int, _ ring: KeyRing, _ dryRun: Bool
  ) throws -> RotatedBatch {
    let lock = dryRun ? "" : " FOR NO KEY UPDATE"
    let rows = try query(
      """
      SELECT \(column.key), \(column.column) FROM \(column.table)
      WHERE \(column.column) IS NOT NULL AND \(column.key) > $1 ORDER BY \(column.key) LIMIT $2\(lock)
      """, [.int(last), .int(Int64(limit))]
    ).map { (try $0.int(), try $0.bytesOrNil() ?? []) }
    var batch = RotatedBatch(last: rows.last?.0)
    var changed: [(row: Int64, sealed: [UInt8])] = []
    for (row, sealed) in rows {
      let id = KeyRing.keyID(of: sealed)
      if id == ring.ids[0] {
        batch.kept += 1
        continue
      }
      do throws(StoreError) {
        let secret = try ring.open(sealed, for: column.place(row))
        guard let anew = try? ring.seal(secret, for: column.place(row)) else { throw .missingKey(id: ring.ids[0]) }
        changed.append((row, anew))
      } catch {
        batch.unreadable[id ?? "", default: 0] += 1
      }
    }
    batch.changed = changed.count
    if dryRun || changed.isEmpty { return batch }
    try commit([
      Statement(
        """
        UPDATE \(column.table) AS t SET \(column.column) = n.sealed
        FROM unnest($1::bigint[], $2::bytea[]) AS n (row, sealed) WHERE t.\(column.key) = n.row
        """, [.ints(changed.map(\.row)), .bytesArray(changed.map(\.sealed))])
    ])
    return batch
  }
}
