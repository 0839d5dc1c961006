import FoundationEssentials
import PostriderCore

extension PostgresStore {
  private static let alertMailStatement = """
    SELECT s.is_on, s.mailbox_id, m.address, s.recipients, s.levels, s.last_mailed_at, \(MailboxQuery.reason("outgoing"))
    FROM alert_mail s JOIN organization o ON o.id = s.organization_id
      LEFT JOIN mailbox m ON m.id = s.mailbox_id LEFT JOIN server_profile p ON p.id = m.profile_id
    WHERE s.organization_id = $1
    """

  private static func alertMail(_ rows: ResultSet) throws -> AlertMailSettings {
    try rows.map { row in
      var settings = AlertMailSettings(
        isOn: try row.bool(), mailboxID: try row.idOrNil(), mailboxAddress: try row.textOrNil(),
        recipients: try row.json(), levels: try row.json(), lastMailedAt: try row.dateOrNil())
      if settings.mailboxID != nil { settings.notSendingReason = try row.textOrNil() }
      return settings
    }.first ?? AlertMailSettings()
  }

  /// Whether and how the organization's alerts go out by mail.
  public func alertMail(for principal: Principal) async throws -> AlertMailSettings {
    try await pool.transaction(.api(principal)) { db in
      try Self.alertMail(
        try db.commit([Statement(Self.alertMailStatement, [.id(principal.organizationID)])])[0])
    }
  }

  /// Changes it. Alerts that are open when it is turned on are mailed too.
  ///
  /// Throws ``StoreError/invalid(_:)`` with everything that is wrong, also for a mailbox that is not there.
  public func updateAlertMail(_ change: AlertMailChange, by principal: Principal) async throws -> AlertMailSettings {
    let organization = principal.organizationID
    return try await pool.transaction(.api(principal)) { db in
      let first = try db.pipeline([
        // Two changes at once come one after the other, also when there is no row yet.
        Statement("SELECT 1 FROM organization WHERE id = $1 FOR NO KEY UPDATE", [.id(organization)]),
        Statement(Self.alertMailStatement, [.id(organization)]),
        Statement(
          "SELECT 1 FROM mailbox WHERE id = $1 AND organization_id = $2", [.id(change.mailboxID), .id(organization)]),
      ])
      let before = try Self.alertMail(first[1])
      let after = try change.applied(to: before)
      if let mailbox = change.mailboxID, first[2].count == 0 {
        throw StoreError.invalid([FieldProblem("/mailboxID", "unknown", "there is no mailbox \(mailbox)")])
      }
      let results = try db.commit([
        Statement(
          """
          INSERT INTO alert_mail (organization_id, is_on, mailbox_id, recipients, levels)
          VALUES ($1, $2, $3, $4::jsonb, $5::jsonb)
          ON CONFLICT (organization_id) DO UPDATE SET is_on = EXCLUDED.is_on, mailbox_id = EXCLUDED.mailbox_id,
            recipients = EXCLUDED.recipients, levels = EXCLUDED.levels
          """,
          [
            .id(organization), .bool(after.isOn), .id(after.mailboxID),
            .text(try PostgresValue.jsonText(after.recipients)), .text(try PostgresValue.jsonText(after.levels)),
          ]),
        .audit(
          [
            AuditEntry(
              "alert-mail.update", "organization", organization.value, before: try PostgresValue.jsonText(before),
              after: try PostgresValue.jsonText(after))
          ], by: principal),
        Statement(Self.alertMailStatement, [.id(organization)]),
      ])
      return try Self.alertMail(results[2])
    }
  }
}
