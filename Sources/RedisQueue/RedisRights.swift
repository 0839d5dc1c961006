/// What the queue's Redis user must be allowed to.
enum RedisRights {
  /// The rule of a user that can do what the queue needs with keys and channels of `prefix`, and nothing else.
  ///
  /// `INFO` tells the server's run id, version, role and eviction policy; it is one of the commands called dangerous, so
  /// it is named. Everything else that is dangerous (KEYS, FLUSHALL, CONFIG, DEBUG, …) stays forbidden. In a Cluster the
  /// nodes are asked for their slots; Sentinels have users of their own.
  static func rule(prefix: String) -> [String] {
    [
      "resetkeys", "~\(prefix):*", "resetchannels", "&\(prefix):*", "-@all", "+@hash", "+@sortedset", "+@set",
      "+@string", "+@list", "-@dangerous", "-@blocking", "+exists", "+del", "+unlink", "+expire", "+pexpire", "+pttl",
      "+type", "+scan", "+time", "+pfadd",
      "+pfcount",
      "+eval", "+evalsha", "+script|load", "+publish", "+subscribe", "+ping", "+select", "+info", "+asking",
      "+cluster|slots",
    ]
  }

  /// Points at the rule.
  static let hint =
    "the user's rights must be: ACL SETUSER name on >password " + rule(prefix: "pr").joined(separator: " ")
}
