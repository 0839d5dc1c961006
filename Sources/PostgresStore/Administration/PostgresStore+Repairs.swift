import FoundationEssentials
import PostriderCore

extension PostgresStore {
  private static let repairColumns = "id, requested_at, requested_by, finished_at, report"

  private static func repair(_ row: inout Row) throws -> RepairRequest {
    RepairRequest(
      id: try row.int(), requestedAt: try row.date(), by: try row.text(), finishedAt: try row.dateOrNil(),
      report: try row.jsonOrNil())
  }

  /// Asks for a repair of the queue; the leading scheduler does it. One that still waits is returned as it is.
  public func requestRepair(by principal: Principal) async throws -> RepairRequest {
    let organization = principal.organizationID
    return try await pool.transaction(.api(principal)) { db in
      let open = try db.query(
        """
        SELECT \(Self.repairColumns) FROM queue_repair WHERE organization_id = $1 AND finished_at IS NULL
        ORDER BY id LIMIT 1
        """, [.id(organization)]
      ).map(Self.repair)
      if let waiting = open.first {
        try db.commit()
        return waiting
      }
      let created = try db.query(
        "INSERT INTO queue_repair (organization_id, requested_by) VALUES ($1, $2) RETURNING \(Self.repairColumns)",
        [.id(organization), .text(principal.name)]
      ).map(Self.repair)[0]
      try db.commit([
        .audit([AuditEntry("queue.repair", "queue-repair", created.id)], by: principal), SchedulePayload.repair,
      ])
      return created
    }
  }

  /// A repair that was asked for. Throws ``StoreError/notFound(_:)``.
  public func repairRequest(_ id: Int64, for principal: Principal) async throws -> RepairRequest {
    try await pool.transaction(.api(principal)) { db in
      let found = try db.commit([
        Statement(
          "SELECT \(Self.repairColumns) FROM queue_repair WHERE id = $1 AND organization_id = $2",
          [.int(id), .id(principal.organizationID)])
      ])[0].map(Self.repair)
      guard let repair = found.first else { throw StoreError.notFound("repair") }
      return repair
    }
  }
}
