import PostriderCore

extension PostgresStore {
  /// Changes mailboxes in one transaction; one answer per row, in the order asked. Nothing is tested.
  ///
  /// A row that is refused (`not-found`, `invalid`, `profile.no-delegation`, …) is left as it is and keeps the others from
  /// nothing. A dry run carries everything out and takes it back, so that it answers what would be answered.
  public func editMailboxes(_ request: MailboxEditRequest, by principal: Principal) async throws -> [MailboxEditResult]
  {
    try request.check()
    return try await rehearsable(request.dryRun == true, principal) { [self] db in
      try edit(request.ids, request.change, by: principal, db)
    }
  }

  /// Gives mailboxes the default profile and the methods of the organization's settings.
  ///
  /// Unlike a direct change this may leave appointments, contacts and tasks chosen on a profile that does not carry them:
  /// what is effective says so. Throws ``StoreError/conflict(code:message:)`` `no-default-profile`.
  public func applyDefaults(
    to ids: [MailboxID], dryRun: Bool, by principal: Principal
  ) async throws -> AppliedDefaults {
    try await rehearsable(dryRun, principal) { [self] db in
      let (settings, change) = try Self.defaults(of: principal.organizationID, db)
      return AppliedDefaults(
        settings: settings, results: try edit(ids, change, applyingDefaults: true, by: principal, db))
    }
  }

  /// The defaults as a change of mailboxes. Throws ``StoreError/conflict(code:message:)`` `no-default-profile`.
  static func defaults(
    of organization: OrganizationID, _ db: isolated PostgresConnection
  ) throws -> (settings: EmailSettings, change: MailboxChange) {
    let settings = try emailSettings(try db.pipeline([emailSettingsStatement(organization)])[0])
    guard let profile = settings.defaultProfileID else {
      throw StoreError.conflict(
        code: "no-default-profile",
        message: "the organization has no default server profile: choose one in its email settings first")
    }
    var change = MailboxChange(profileID: profile)
    change.incomingMethod = settings.incomingMethod
    change.outgoingMethod = settings.outgoingMethod
    change.actMethod = settings.act.method
    return (settings, change)
  }

  /// Ends a transaction that is not to be kept, with what it found out.
  private struct Rehearsal<Value: Sendable>: Error {
    var value: Value
  }

  /// Carries something out, and takes it back when it was only to be tried.
  private func rehearsable<Value: Sendable>(
    _ isRehearsal: Bool, _ principal: Principal,
    _ body: @escaping @Sendable (isolated PostgresConnection) throws -> Value
  ) async throws -> Value {
    do {
      return try await pool.transaction(.api(principal)) { db in
        let value = try body(db)
        if isRehearsal { throw Rehearsal(value: value) }
        try db.commit()
        return value
      }
    } catch let rehearsal as Rehearsal<Value> {
      return rehearsal.value
    }
  }

  /// Changes each in the order of their numbers, in which mailboxes are locked everywhere.
  func edit(
    _ ids: [MailboxID], _ change: MailboxChange, applyingDefaults: Bool = false, by principal: Principal,
    _ db: isolated PostgresConnection
  ) throws -> [MailboxEditResult] {
    let sorted = Set(ids).sorted()
    try db.query(
      "SELECT 1 FROM mailbox WHERE id = ANY ($1) AND organization_id = $2 ORDER BY id FOR NO KEY UPDATE",
      [.ids(sorted), .id(principal.organizationID)])
    var edits: [MailboxID: MailboxEditResult] = [:]
    for id in sorted {
      try db.query("SAVEPOINT row")
      do {
        let step = try self.change(id, change, applyingDefaults: applyingDefaults, by: principal, db)
        let after = try step.statements.isEmpty ? nil : db.pipeline(step.statements).last.map(Self.mailbox)
        try db.query("RELEASE SAVEPOINT row")
        edits[id] = MailboxEditResult(id: id, ok: true, before: step.before, mailbox: after ?? step.before)
      } catch {
        let refusal = (error as? PostgresError)?.mailboxConflict("") ?? error as? StoreError
        guard let answer = refusal?.answer(of: id) else { throw error }
        try db.query("ROLLBACK TO SAVEPOINT row")
        edits[id] = answer
      }
    }
    return ids.map { edits[$0] ?? MailboxEditResult(id: $0, ok: false, code: "not-found") }
  }
}

extension StoreError {
  /// What one row of several is answered; `nil` for a fault that has nothing to do with the row.
  fileprivate func answer(of id: MailboxID) -> MailboxEditResult? {
    switch self {
    case .notFound: MailboxEditResult(id: id, ok: false, code: "not-found", message: description)
    case .conflict(let code, let message): MailboxEditResult(id: id, ok: false, code: code, message: message)
    case .invalid(let problems):
      MailboxEditResult(id: id, ok: false, code: problems.first?.code ?? "invalid", message: description)
    case .unavailable, .stale, .schema, .missingKey, .statement: nil
    }
  }
}
