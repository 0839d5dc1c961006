/// The form of what stands in Redis: keys, records, the meaning of scores, the channels' words.
///
/// Two releases work on the same keys while a deployment is upgraded. Scripts go by their contents, so each release runs its
/// own; what they share is the layout. A release that changes it so that a script of the release before would not
/// understand it any more raises ``version``. An epoch has one layout, that of the leader who opened it: a leader that
/// finds another one opens an epoch of its own, and whoever does not know an epoch's layout works in none (D150).
///
/// A test plays the scripts of the release before against this one's; it fails when a change was forgotten here.
enum RedisLayout {
  /// The layout that this program reads and writes.
  static let version: Int64 = 1

  /// The layout in an epoch's field; releases before the rule wrote none, and theirs is the first.
  static func number(_ field: RedisValue) -> Int64 { field.integer ?? 1 }
}
