import PostriderCore

extension PostgresStore {
  /// Sends a draft, or tries a message again: its recipients that failed, and, where `resendUncertain` says so, those of
  /// whom nobody knows. Recipients that were accepted never get it twice.
  ///
  /// Throws ``StoreError/conflict(code:message:)`` with `uncertain` when the word is missing, `not-retryable` for a message
  /// in any other state, or the reason when the mailbox does not send.
  public func retryOutgoing(
    _ id: OutgoingEmailID, resendUncertain: Bool, by principal: Principal
  ) async throws -> OutgoingEmail {
    let mailbox = try await outgoingEmail(id, for: principal).mailboxID
    let key: [PostgresValue] = [.id(id), .id(principal.organizationID)]
    try await pool.transaction(.api(principal)) { db in
      _ = try Self.sender(mailbox, mustSend: true, db, principal)
      let states: [OutgoingState] = try db.query(
        "SELECT state FROM outgoing_email WHERE id = $1 AND organization_id = $2 FOR NO KEY UPDATE", key
      ).map { try $0.word() }
      guard let state = states.first else { throw StoreError.notFound("message") }
      switch state {
      case .draft, .failed, .partlySent: break
      case .uncertain where resendUncertain: break
      case .uncertain:
        throw StoreError.conflict(
          code: "uncertain", message: "the message may have arrived; say resendUncertain to send it again all the same")
      case .pendingSend, .sending, .sent, .canceled:
        throw StoreError.conflict(code: "not-retryable", message: "the message is \(state.rawValue)")
      }
      let before = #"{"state":"\#(state.rawValue)"}"#
      try db.commit(
        [
          Statement(
            """
            UPDATE outgoing_email SET state = 'pending-send', next_try_at = greatest(now(), send_after),
              created_at = CASE WHEN state = 'draft' THEN now() ELSE created_at END, attempts = 0, tried_since = NULL,
              failure_code = NULL, failure = NULL, updated_at = now()
            WHERE id = $1 AND organization_id = $2
            """, key),
          Statement(
            """
            UPDATE outgoing_recipient SET state = 'pending', failure_code = NULL, failure = NULL
            WHERE email_id = $1 AND organization_id = $2 AND state IN ('failed', 'uncertain')
            """, key),
          .audit(
            [
              AuditEntry(
                state == .uncertain ? "email.resend" : "email.retry", "outgoing-email", id.value, before: before,
                after: #"{"state":"pending-send"}"#)
            ], by: principal),
        ] + Self.sendRequest(mailbox))
    }
    return try await outgoingEmail(id, for: principal)
  }
}
