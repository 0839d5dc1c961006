import PostriderCore

extension PostgresStore {
  /// Claims a mailbox's address for its organization, in the name of a test that has logged in.
  ///
  /// All of it is one function of the database, so that both organizations change in one transaction: whoever had the
  /// address stands still, sessions there are fenced, both have an alert and a row in the audit (D173).
  public func claimAddress(writer: SessionGuard) async throws -> AddressClaim {
    let answer = try await pool.transaction(.worker) { db in
      var row = try db.commit([
        Statement(
          "SELECT claim_address($1, $2, $3, $4)",
          [.id(writer.job.mailbox), .id(writer.organizationID), .int(writer.generation), .int(writer.fence.value)])
      ])[0][0]
      return try row.text()
    }
    guard let claim = AddressClaim(rawValue: answer) else {
      outcomes.countFenced()
      throw FencedError(writer: writer)
    }
    return claim
  }

  /// Ticks the box "sync from this organization only" for the tests that were requested just now.
  static func tickTakeOver(of mailboxes: [MailboxID], by principal: Principal) -> Statement {
    Statement(
      """
      INSERT INTO address_take_over AS t (mailbox_id, organization_id, request, user_id, user_name)
      SELECT s.mailbox_id, s.organization_id, s.requested, $2, $3 FROM mailbox_schedule s
      WHERE s.mailbox_id = ANY ($1) AND s.kind = 't'
      ON CONFLICT (mailbox_id) DO UPDATE SET request = EXCLUDED.request, user_id = EXCLUDED.user_id,
        user_name = EXCLUDED.user_name, requested_at = now()
      """, [.ids(mailboxes), .id(principal.userID), .text(principal.name)])
  }
}
