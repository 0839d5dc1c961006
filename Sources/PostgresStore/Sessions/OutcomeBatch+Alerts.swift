import FoundationEssentials
import PostriderCore

extension OutcomeBatch {
  /// An alert to resolve: of one code or all, of one direction or both.
  private struct Resolution {
    var index: Int
    var code: String?
    var direction: Direction?
  }

  /// Resolves first, then raises, so that an outcome may do both.
  func alertStatements() throws -> [Statement] {
    var resolved: [Resolution] = []
    var onMailbox: [(index: Int, draft: AlertDraft)] = []
    var onProfile: [(index: Int, draft: AlertDraft)] = []
    for index in outcomes.indices {
      for change in outcomes[index].alerts {
        switch change {
        case .resolve(codes: nil, let direction):
          resolved.append(Resolution(index: index, code: nil, direction: direction))
        case .resolve(codes: let codes?, let direction):
          resolved += codes.map { Resolution(index: index, code: $0, direction: direction) }
        case .raise(let draft) where draft.onProfile: onProfile.append((index, draft))
        case .raise(let draft): onMailbox.append((index, draft))
        }
      }
    }
    let recovered = resolved.filter(isRecovery)
    var statements: [Statement] = []
    if !resolved.isEmpty { statements.append(resolveOnMailboxes(resolved)) }
    if !recovered.isEmpty { statements.append(resolveOnProfiles(recovered)) }
    if !onMailbox.isEmpty { statements.append(try raise(onMailbox, subject: "mailbox_id")) }
    if !onProfile.isEmpty { statements.append(try raise(onProfile, subject: "profile_id")) }
    return statements
  }

  /// Whether the session shows that the direction works: a failed test answers older alerts, but nothing recovered.
  private func isRecovery(_ resolution: Resolution) -> Bool {
    !outcomes[resolution.index].directions.contains { change in
      change.status == .failure && (resolution.direction == nil || resolution.direction == change.direction)
    }
  }

  private func writers(_ indexes: [Int]) -> [PostgresValue] {
    [
      .ints(indexes.map { firstRun + Int64($0) }), .ids(indexes.map { outcomes[$0].writer.job.mailbox }),
      .texts(indexes.map { outcomes[$0].writer.job.kind.rawValue }),
    ]
  }

  private func resolveOnMailboxes(_ rows: [Resolution]) -> Statement {
    Statement(
      """
      UPDATE alert a SET resolved_at = now()
      FROM unnest($1, $2, $3, $4, $5) AS i (run_id, mailbox_id, kind, code, direction)
      JOIN mailbox_schedule s ON s.mailbox_id = i.mailbox_id AND s.kind = i.kind AND s.last_run_id = i.run_id
      WHERE a.mailbox_id = i.mailbox_id AND a.resolved_at IS NULL AND a.level IN ('warning', 'error')
        AND (i.code IS NULL OR a.code = i.code) AND (i.direction IS NULL OR a.direction = i.direction)
      """, writers(rows.map(\.index)) + [.texts(rows.map(\.code)), .texts(rows.map(\.direction?.rawValue))])
  }

  /// Resolves the failures on the profiles' walls. A failure stands there because its scope was the server or the
  /// profile, also where its code alone says otherwise: a refused login of the profile's own account.
  ///
  /// Mailboxes of one profile recover in many sessions at once. A row that another transaction holds is being resolved
  /// there, or raised again: nobody has to wait for it.
  private func resolveOnProfiles(_ rows: [Resolution]) -> Statement {
    Statement(
      """
      WITH open AS (
        SELECT a.id
        FROM unnest($1, $2, $3, $4, $5, $6) AS i (run_id, mailbox_id, kind, profile_id, code, direction)
        JOIN mailbox_schedule s ON s.mailbox_id = i.mailbox_id AND s.kind = i.kind AND s.last_run_id = i.run_id
        JOIN alert a ON a.profile_id = i.profile_id AND a.organization_id = s.organization_id
        WHERE a.mailbox_id IS NULL AND a.resolved_at IS NULL AND a.level IN ('warning', 'error')
          AND (i.code IS NULL OR a.code = i.code) AND (i.direction IS NULL OR a.direction = i.direction)
          AND a.code = ANY ($7)
        FOR NO KEY UPDATE OF a SKIP LOCKED
      )
      UPDATE alert SET resolved_at = now() WHERE id IN (SELECT id FROM open)
      """,
      writers(rows.map(\.index)) + [
        .ids(rows.map { outcomes[$0.index].profileID }), .texts(rows.map(\.code)),
        .texts(rows.map(\.direction?.rawValue)), .texts(FailureCode.allCases.map(\.rawValue)),
      ])
  }

  /// Raises alerts on one kind of subject; repeats within the batch count together.
  private func raise(_ rows: [(index: Int, draft: AlertDraft)], subject: String) throws -> Statement {
    Statement(
      """
      INSERT INTO alert AS a (organization_id, \(subject), code, direction, level, text, remedy, parameters, run_id,
        count)
      SELECT DISTINCT ON (i.subject_id, i.code, i.direction) s.organization_id, i.subject_id, i.code, i.direction,
        i.level, i.text, i.remedy, i.parameters::jsonb, i.run_id,
        count(*) OVER (PARTITION BY i.subject_id, i.code, i.direction)
      FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        AS i (run_id, mailbox_id, kind, subject_id, code, direction, level, text, remedy, parameters)
      JOIN mailbox_schedule s ON s.mailbox_id = i.mailbox_id AND s.kind = i.kind AND s.last_run_id = i.run_id
      ORDER BY i.subject_id, i.code, i.direction, i.run_id DESC
      ON CONFLICT (\(subject), code, coalesce(direction, '')) WHERE resolved_at IS NULL AND \(subject) IS NOT NULL
      DO UPDATE SET
        count = a.count + EXCLUDED.count, last_seen = now(), level = EXCLUDED.level, text = EXCLUDED.text,
        remedy = EXCLUDED.remedy, parameters = EXCLUDED.parameters, run_id = EXCLUDED.run_id
      """,
      writers(rows.map(\.index)) + [
        .ints(
          rows.map { row in
            subject == "profile_id" ? outcomes[row.index].profileID.value : outcomes[row.index].writer.job.mailbox.value
          }),
        .texts(rows.map(\.draft.code)), .texts(rows.map(\.draft.direction?.rawValue)),
        .texts(rows.map(\.draft.level.rawValue)), .texts(rows.map(\.draft.text)),
        .texts(rows.map(\.draft.remedy)), .texts(try rows.map { try PostgresValue.jsonText($0.draft.parameters) }),
      ])
  }
}

extension AlertDraft {
  /// The direction among its parameters; a word that is none counts as none.
  fileprivate var direction: Direction? { parameters["direction"].flatMap(Direction.init(rawValue:)) }
}
