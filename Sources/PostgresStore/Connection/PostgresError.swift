import PostriderCore

/// A statement that PostgreSQL refused; becomes a ``StoreError`` where the transaction ends.
struct PostgresError: Error, Sendable, CustomStringConvertible {
  /// Five characters (PostgreSQL appendix A).
  var sqlState: String
  /// The primary message. The detail is left out on purpose: it repeats values.
  var message: String
  /// The constraint that was violated.
  var constraint: String?
  /// The SQL text, which never holds values.
  var statement: String

  var description: String { "\(sqlState): \(message)" }

  /// SQLSTATE `read_only_sql_transaction`.
  static let readOnly = "25006"

  /// Whether the same transaction may pass when it is tried again (deadlock, serialization).
  var isRetryable: Bool { sqlState == "40001" || sqlState == "40P01" }

  /// Whether a kept plan was not there, there already, or of an older schema: another connection of the server answered,
  /// behind a transaction pooler, or a migration came between.
  var isAboutKeptPlan: Bool { ["26000", "42P05", "0A000"].contains(sqlState) }

  /// Whether the statement names a row of another table that is not there (foreign_key_violation).
  var isAboutMissingRow: Bool { sqlState == "23503" }

  /// Whether the statement lost against another row with the same key.
  func violates(_ constraint: String) -> Bool { sqlState == "23505" && self.constraint == constraint }

  /// Why a mailbox may not use the account of a profile; `nil` when that is not what was refused.
  var delegationConflict: StoreError? {
    if violates("mailbox_delegation") {
      return .conflict(
        code: FailureCode.profileNoDelegation.rawValue,
        message: "the account of this server profile opens its own maildrop, and another mailbox uses it already; give "
          + "the profile `loginAs` (`authzid`, or a template such as {mailbox}*{user})")
    }
    if violates("mailbox_maildrop_taken") {
      return .conflict(
        code: "profile.maildrop-taken",
        message: "another mailbox of this server profile has the same user name, and so would open the same maildrop")
    }
    return nil
  }

  /// What the callers of the store see.
  var storeError: StoreError {
    if statement.hasPrefix(Scope.statementPrefix) && (sqlState == "22023" || sqlState == "42501") {
      return .schema(
        reason: "the login role may not act as the database roles of Postrider (\(message)); run `postrider migrate`"
          + " with the application's URL")
    }
    switch sqlState {
    case "57P01", "57P02", "57P03", "53300", Self.readOnly, "25P03":
      return .unavailable(reason: message)
    case "57014", "55P03", "40001", "40P01":
      return .unavailable(reason: "the database was too busy: \(message)")
    case "42P01", "42703", "42883":
      return .schema(reason: "the database's schema does not fit this program (\(message)); run `postrider migrate`")
    case "22021":
      return .invalid([FieldProblem("", "control-character", "texts must not contain NUL characters")])
    case let state where state.hasPrefix("08"):
      return .unavailable(reason: message)
    case let state where state.hasPrefix("22"):
      // Messages of this class repeat the value that was refused.
      return .statement(sqlState: state, message: "a value is outside of what its column can hold")
    default:
      return .statement(sqlState: sqlState, message: message)
    }
  }

  /// Turns whatever a transaction threw into what the seam promises.
  static func storeError(_ error: any Error) -> any Error {
    (error as? PostgresError)?.storeError ?? error
  }
}
