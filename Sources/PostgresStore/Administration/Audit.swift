import FoundationEssentials
import PostriderCore

/// A change as the audit keeps it: who, what, before, after. Never a secret.
struct AuditEntry: Sendable {
  var action: String
  var subjectKind: String
  /// `nil` for what has no number.
  var subjectID: Int64?
  var before: String?
  var after: String?

  init(_ action: String, _ subjectKind: String, _ subjectID: Int64?, before: String? = nil, after: String? = nil) {
    self.action = action
    self.subjectKind = subjectKind
    self.subjectID = subjectID
    self.before = before
    self.after = after
  }
}

extension Statement {
  /// Writes audit rows; part of the transaction that makes the changes.
  static func audit(_ entries: [AuditEntry], by principal: Principal) -> Statement {
    Statement(
      """
      INSERT INTO audit (organization_id, user_id, user_name, action, subject_kind, subject_id, before, after)
      SELECT $1, $2, $3, i.action, i.subject_kind, i.subject_id, i.before::jsonb, i.after::jsonb
      FROM unnest($4, $5, $6, $7, $8) AS i (action, subject_kind, subject_id, before, after)
      """,
      [
        .id(principal.organizationID), .id(principal.userID), .text(principal.name), .texts(entries.map(\.action)),
        .texts(entries.map(\.subjectKind)), .ints(entries.map(\.subjectID)), .texts(entries.map(\.before)),
        .texts(entries.map(\.after)),
      ])
  }
}
