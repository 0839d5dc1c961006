/// A column that holds values encrypted by the key ring, one in each row.
struct SealedColumn: Hashable, Sendable {
  var table: String
  var column: String
  /// The column of the row's number, which the value is bound to.
  var key = "id"

  /// Every such column. A test compares it with the schema: what is left out here would not be encrypted anew.
  static let all = [
    SealedColumn(table: "mailbox", column: "password"),
    SealedColumn(table: "server_profile", column: "incoming_password"),
    SealedColumn(table: "server_profile", column: "outgoing_password"),
    SealedColumn(table: "oauth_client", column: "secret", key: "profile_id"),
    SealedColumn(table: "oauth_client", column: "access_token", key: "profile_id"),
    SealedColumn(table: "oauth_grant", column: "access_token", key: "mailbox_id"),
    SealedColumn(table: "oauth_grant", column: "refresh_token", key: "mailbox_id"),
    SealedColumn(table: "oauth_consent", column: "code_verifier"),
    SealedColumn(table: "webhook", column: "secret"),
    SealedColumn(table: "mailbox_import_row", column: "password"),
  ]

  /// The place of a value.
  func place(_ row: Int64) -> SealedPlace { SealedPlace(table: table, column: column, row: row) }

  /// SQL for the id of a value's key, as octets; NULL for what was not written by this program.
  var keyID: String {
    "CASE WHEN octet_length(\(column)) > 2 THEN substring(\(column) FROM 3 FOR get_byte(\(column), 1)) END"
  }
}
