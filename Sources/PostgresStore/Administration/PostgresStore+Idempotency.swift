import PostriderCore

extension PostgresStore {
  /// Claims a key. Of two that come at once one waits for the other's row and finds it busy.
  public func claimKey(
    _ key: String, requestHash: [UInt8], for duration: Duration, by principal: Principal
  ) async throws -> KeyClaim {
    let organization = principal.organizationID
    return try await pool.transaction(.api(principal)) { db in
      let claimed = try db.pipeline([
        Statement(
          """
          INSERT INTO idempotency_key AS k (organization_id, key, request_hash, busy_until)
          VALUES ($1, $2, $3, clock_timestamp() + $4 * interval '1 millisecond')
          ON CONFLICT (organization_id, key) DO UPDATE SET request_hash = excluded.request_hash,
            busy_until = excluded.busy_until, status = NULL, location = NULL, answer = NULL, created_at = now()
          WHERE k.created_at < now() - interval '1 day'
            OR k.status IS NULL AND k.busy_until < clock_timestamp() AND k.request_hash = excluded.request_hash
          RETURNING 1
          """, [.id(organization), .text(key), .bytes(requestHash), .int(duration.wholeMilliseconds)]),
        Statement(
          """
          SELECT request_hash = $3, status, location, answer FROM idempotency_key
          WHERE organization_id = $1 AND key = $2
          """, [.id(organization), .text(key), .bytes(requestHash)]),
      ])
      try db.commit()
      if claimed[0].count > 0 { return .new }
      guard var row = claimed[1].first else { return .busy }
      guard try row.bool() else { return .other }
      guard let status = try row.intOrNil() else { return .busy }
      let location = try row.textOrNil()
      return .answered(KeptAnswer(status: Int(status), location: location, body: try row.textOrNil() ?? ""))
    }
  }

  /// Keeps the answer.
  public func keepAnswer(_ answer: KeptAnswer, under key: String, by principal: Principal) async throws {
    try await pool.transaction(.api(principal)) { db in
      _ = try db.commit([
        Statement(
          """
          UPDATE idempotency_key SET status = $3, location = $4, answer = $5
          WHERE organization_id = $1 AND key = $2
          """,
          [
            .id(principal.organizationID), .text(key), .int(Int64(answer.status)), .text(answer.location),
            .text(answer.body),
          ])
      ])
    }
  }

  /// Gives a key back whose request was refused.
  public func releaseKey(_ key: String, by principal: Principal) async throws {
    try await pool.transaction(.api(principal)) { db in
      _ = try db.commit([
        Statement(
          "DELETE FROM idempotency_key WHERE organization_id = $1 AND key = $2 AND status IS NULL",
          [.id(principal.organizationID), .text(key)])
      ])
    }
  }
}
