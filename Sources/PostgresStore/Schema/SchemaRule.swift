import PostriderCore

/// Which schemas a program works with.
///
/// The program says how old a schema may be, the database how old a program may be: only a newer release can know what its
/// migrations take away from older ones. So two releases next to each other work side by side (D150).
struct SchemaRule: Sendable {
  /// The oldest schema that this program's statements work with.
  var needed: Int
  /// The newest migration that this program knows.
  var newest: Int

  /// This program's. A release that works before its migrations are applied lowers `needed`; nothing else may.
  static let program = SchemaRule(needed: Migration.newest, newest: Migration.newest)

  /// Why this program must not work with a schema; `nil` when it may.
  ///
  /// - Parameters:
  ///   - version: the newest migration that was applied; 0 for none.
  ///   - worksWith: the newest migration that programs have to know, as the applied ones demand; 0 for any.
  func refusal(version: Int, worksWith: Int) -> StoreError? {
    if version < needed {
      return .schema(
        reason: "the database's schema is version \(version), this program needs \(needed); run `postrider migrate` of"
          + " this release. Nothing is done until then")
    }
    if version > newest && worksWith > newest {
      return .schema(
        reason: "the database's schema is version \(version) and works with programs that know migration \(worksWith),"
          + " this one knows \(newest); use the newer release. Nothing is done by this one")
    }
    return nil
  }

  /// What is asked of the database: the newest migration, and what the applied ones demand. The column is younger than
  /// the table, so it is read as a field of the row.
  static let question = "SELECT max(version), max((to_jsonb(m) ->> 'works_with')::int) FROM schema_migration m"
}
