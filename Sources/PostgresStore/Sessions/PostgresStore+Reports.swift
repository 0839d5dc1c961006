import PostriderCore

/// What comes in and is about what went out: our own messages, and reports on them.
extension PostgresStore {
  /// The Message-IDs among those of received messages that were sent from this very mailbox. Mail from one mailbox to
  /// another is mail like any other.
  static func ownStatement(_ messages: [ReceivedMessage], _ writer: SessionGuard) -> Statement {
    Statement(
      """
      SELECT i.message_id FROM unnest($2) AS i (message_id)
      WHERE EXISTS (SELECT FROM outgoing_email o
          WHERE o.mailbox_id = $1 AND o.message_id = i.message_id AND o.state <> 'draft')
        OR EXISTS (SELECT FROM own_message o WHERE o.mailbox_id = $1 AND o.message_id = i.message_id)
      """, [.id(writer.job.mailbox), .texts(messages.compactMap(\.envelope.messageID))])
  }

  /// Says in the ledger why they are not imported.
  static func ownLedgerStatement(_ uidls: Set<String>, _ writer: SessionGuard) -> Statement {
    Statement(
      "UPDATE ledger SET state = 'own' WHERE mailbox_id = $1 AND uidl = ANY ($2) AND email_id IS NULL",
      [.id(writer.job.mailbox), .texts(uidls.sorted())])
  }

  /// Writes what delivery reports say to the recipients of the messages that they are about.
  ///
  /// A report names the address it was delivered to in the end, which aliases may have changed: of a message with one
  /// recipient it can be no other. After a failure nothing less is believed.
  static func reportStatement(
    _ reports: [(email: Int64, notification: DeliveryNotification?)], _ writer: SessionGuard
  ) -> Statement {
    var rows: [(email: Int64, messageID: String, address: String, report: DeliveryReport)] = []
    for (email, notification) in reports {
      guard let notification, let messageID = notification.messageID else { continue }
      for recipient in notification.recipients {
        for address in recipient.addresses { rows.append((email, messageID, address, recipient.report)) }
      }
    }
    return Statement(
      """
      UPDATE outgoing_recipient r SET report_action = i.action, report_status = i.status,
        report_diagnostic = i.diagnostic, report_email_id = i.email_id, reported_at = now()
      FROM unnest($2, $3, $4, $5, $6, $7) AS i (email_id, message_id, address, action, status, diagnostic)
      JOIN outgoing_email e ON e.mailbox_id = $1 AND e.message_id = i.message_id
      WHERE r.email_id = e.id AND r.state IN ('accepted', 'uncertain')
        AND (r.report_action IS DISTINCT FROM 'failed' OR i.action = 'failed')
        AND (lower(r.address) = i.address
          OR (SELECT count(*) FROM outgoing_recipient o WHERE o.email_id = e.id) = 1)
      """,
      [
        .id(writer.job.mailbox), .ints(rows.map(\.email)), .texts(rows.map(\.messageID)), .texts(rows.map(\.address)),
        .texts(rows.map(\.report.action.rawValue)), .texts(rows.map(\.report.status)),
        .texts(rows.map(\.report.diagnostic)),
      ])
  }
}
