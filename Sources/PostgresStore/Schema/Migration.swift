import Crypto
import FoundationEssentials

/// One forward-only step of the schema, embedded in the program.
struct Migration: Sendable {
  /// 1, 2, 3, … without gaps.
  var version: Int
  /// The file's name without number and ending.
  var name: String
  /// The statements.
  var sql: String
  /// The newest migration that a program must know to go on working once this one is applied; `nil` when it only adds and
  /// every program that worked before goes on. Set where something is taken away (D150).
  var worksWith: Int?

  /// The checksum under which it was published, where the same statements stand in another order since; `nil`: its own.
  ///
  /// So databases of either order are of one kind, for this release and for the one before it.
  var published: String?

  /// SHA-256 of the statements in hexadecimal: what an applied migration does is never edited.
  var checksum: String { published ?? contentsChecksum }

  /// The same of what it holds now.
  var contentsChecksum: String {
    SHA256.hash(data: Data(sql.utf8)).map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }

  private init(
    _ version: Int, _ name: String, _ octets: [UInt8], worksWith: Int? = nil, published: String? = nil
  ) {
    self.init(version: version, name: name, sql: String(decoding: octets, as: UTF8.self), worksWith: worksWith)
    self.published = published
  }

  init(version: Int, name: String, sql: String, worksWith: Int? = nil) {
    self.version = version
    self.name = name
    self.sql = sql
    self.worksWith = worksWith
  }

  /// All of them, oldest first. The build names a resource after its file, the first digit becoming `_`.
  static let all = [
    Migration(1, "initial", PackageResources._001_initial_sql),
    Migration(2, "operations", PackageResources._002_operations_sql),
    Migration(3, "sending", PackageResources._003_sending_sql),
    Migration(4, "lanes", PackageResources._004_lanes_sql),
    Migration(5, "submission", PackageResources._005_submission_sql),
    Migration(6, "logins", PackageResources._006_logins_sql),
    Migration(7, "quarantine", PackageResources._007_quarantine_sql),
    Migration(8, "login_limit", PackageResources._008_login_limit_sql),
    Migration(9, "pace", PackageResources._009_pace_sql),
    Migration(10, "handover", PackageResources._010_handover_sql),
    Migration(11, "oauth", PackageResources._011_oauth_sql),
    Migration(12, "attempts", PackageResources._012_attempts_sql),
    Migration(13, "people", PackageResources._013_people_sql),
    Migration(14, "settings", PackageResources._014_settings_sql),
    Migration(15, "batches", PackageResources._015_batches_sql),
    // Dropped indexes before it built others, which kept all readers of mailboxes away.
    Migration(
      16, "lists", PackageResources._016_lists_sql,
      published: "cb28a7482b907021da15a94cfc95f5c4edcc1b9c46baf2b2291899b3fa5f7d81"),
    Migration(17, "grants", PackageResources._017_grants_sql),
    Migration(18, "ownership", PackageResources._018_ownership_sql),
    Migration(19, "own_mailboxes", PackageResources._019_own_mailboxes_sql),
  ]

  /// The number of the newest.
  static var newest: Int { all.last?.version ?? 0 }
}
