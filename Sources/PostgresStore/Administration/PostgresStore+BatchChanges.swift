import PostriderCore

extension BatchVerb {
  /// The most rows of one step: those that are written one by one, or have much that hangs on them, are fewer, so that
  /// their locks are held no longer.
  var stepRows: Int64 {
    switch self {
    case .applyDefaults, .writeDefaults: 50
    case .delete, .deleteWithUnsentMail: 100
    case .approve, .reject, .test, .poll, .importMailboxes: LockedBatch.maximumStepRows
    }
  }
}

/// Steps that change mailboxes one by one, or end them.
extension PostgresStore {
  /// Gives the next mailboxes the defaults that there are now, and asks for their tests where that is the verb.
  func defaultsStep(_ batch: LockedBatch, _ db: isolated PostgresConnection) throws -> (RowChanges, [Statement]) {
    let rows = try pendingRows(batch, db)
    var changes = RowChanges()
    let change: MailboxChange
    do {
      change = try Self.defaults(of: batch.principal.organizationID, db).change
    } catch StoreError.conflict(let code, let message) {
      for row in rows { changes.add(row.position, .failed, code: code, message: message) }
      return (changes, [])
    }
    if batch.dryRun { try db.query("SAVEPOINT rehearsal") }
    let edits = try edit(rows.map(\.id), change, applyingDefaults: true, by: batch.principal, db)
    var tests = BulkPlan()
    if batch.verb.job == .test {
      let written = edits.filter(\.ok).map(\.id)
      tests = .test(
        try Self.facts(of: written, in: batch.principal.organizationID, db), .batchTest, by: batch.principal)
    }
    if batch.dryRun { try db.query("ROLLBACK TO SAVEPOINT rehearsal") }
    for (row, edit) in zip(rows, edits) {
      if !edit.ok {
        changes.add(row.position, .failed, code: edit.code, message: edit.message)
      } else if let refusal = tests.refusals[row.id] {
        changes.add(
          row.position, .failed, code: refusal.code, message: "has the defaults, but is not tested: \(refusal.message)")
      } else if batch.verb.job != nil && !batch.dryRun {
        changes.add(row.position, .waiting)
      } else {
        changes.add(row.position, edit.before == edit.mailbox ? .unchanged : .done)
      }
    }
    return (changes, tests.statements)
  }

  /// Deletes the next mailboxes; their rows keep the addresses.
  func deletionStep(_ batch: LockedBatch, _ db: isolated PostgresConnection) throws -> (RowChanges, [Statement]) {
    let rows = try pendingRows(batch, db)
    let plan = try Self.deletion(
      of: rows.map(\.id), discardsUnsentMail: batch.verb == .deleteWithUnsentMail, by: batch.principal, db)
    var changes = RowChanges()
    for row in rows {
      let answer = plan.answers[row.id]
      changes.add(
        row.position, answer?.ok == true ? .done : .failed, code: answer == nil ? "not-found" : answer?.code,
        message: answer?.message, address: answer?.address)
    }
    return (changes, plan.statements)
  }
}
