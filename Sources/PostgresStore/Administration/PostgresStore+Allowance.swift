import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// What a mailbox may send, what it has sent, and when the next message may leave. Throws ``StoreError/notFound(_:)``.
  public func sendAllowance(of id: MailboxID, for principal: Principal) async throws -> SendAllowance {
    try await pool.transaction(.api(principal)) { db in
      let rows = try db.query(
        """
        SELECT m.send_quota, p.send_quota, p.shared_send_quota, p.type, m.profile_id,
          (SELECT connections FROM send_pace s WHERE s.mailbox_id = m.id AND s.connections_until > now())
        FROM mailbox m LEFT JOIN server_profile p ON p.id = m.profile_id
        WHERE m.id = $1 AND m.organization_id = $2
        """, [.id(id), .id(principal.organizationID)]
      ).map { row in
        (
          try row.jsonOrNil() as SendQuota?, try row.jsonOrNil() as SendQuota?, try row.jsonOrNil() as SendQuota?,
          try row.textOrNil(), try row.intOrNil(), try row.intOrNil()
        )
      }
      guard let (own, each, shared, type, profile, connections) = rows.first else {
        throw StoreError.notFound("mailbox")
      }
      let preset = type.flatMap(ProfileType.init)?.sendQuota ?? .none
      var allowance = SendAllowance(
        mailboxID: id, quota: own ?? each ?? preset, source: own != nil ? .mailbox : each != nil ? .profile : .provider,
        sharedQuota: shared ?? .none, used: SendUsage(), sharedUsed: SendUsage(), connections: connections.map(Int.init)
      )
      func json(_ quota: SendQuota) throws -> PostgresValue {
        .text(quota == .none ? nil : try PostgresValue.jsonText(quota))
      }
      let results = try db.commit([
        Self.usage(profile, id.value), Self.usage(profile, 0),
        Statement(
          "SELECT opens_at, why FROM next_outgoing($1, $2, $3::jsonb, $4::jsonb)",
          [.id(id), .int(profile), try json(allowance.quota), try json(allowance.sharedQuota)]),
      ])
      allowance.used = try Self.usage(results[0])
      allowance.sharedUsed = try Self.usage(results[1])
      let wait = try Self.wait(results[2])
      allowance.waitsUntil = wait?.until
      allowance.reason = wait?.reason
      return allowance
    }
  }

  private static func usage(_ profile: Int64?, _ mailbox: Int64) -> Statement {
    Statement(
      """
      SELECT coalesce(sum(messages) FILTER (WHERE span = 1
          AND bucket >= date_bin('1 second', now(), 'epoch') - interval '1 minute'), 0),
        coalesce(sum(messages) FILTER (WHERE span = 300), 0), coalesce(sum(recipients) FILTER (WHERE span = 300), 0)
      FROM send_usage WHERE profile_id = $1 AND mailbox_id = $2
        AND bucket >= date_bin('5 minutes', now(), 'epoch') - interval '1 day'
      """, [.int(profile), .int(mailbox)])
  }

  private static func usage(_ rows: ResultSet) throws -> SendUsage {
    try rows.map { row in
      SendUsage(
        messagesLastMinute: Int(try row.int()), messagesLastDay: Int(try row.int()),
        recipientsLastDay: Int(try row.int()))
    }.first ?? SendUsage()
  }
}
