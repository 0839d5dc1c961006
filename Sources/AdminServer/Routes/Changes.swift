import PostriderCore

extension ProfileChange {
  /// Throws ``StoreError/invalid(_:)`` for values out of range and for a change of nothing.
  func check() throws(StoreError) {
    var problems = FieldProblems()
    if let number = maximumConcurrentConnections {
      problems.check(number, at: "/maximumConcurrentConnections", in: 1...300)
    }
    if let minutes = minimumPollingIntervalMinutes {
      problems.check(minutes, at: "/minimumPollingIntervalMinutes", in: 0...1_440)
    }
    if let weight { problems.check(weight, at: "/weight", in: 1...100) }
    if let logins = maximumFailedLogins { problems.check(logins, at: "/maximumFailedLogins", in: 1...1_000) }
    if self == ProfileChange(version: version) { problems.add("", "required", "must change something") }
    try problems.throwIfAny()
  }
}

extension MailboxChange {
  /// Throws ``StoreError/invalid(_:)`` for a change of nothing.
  func check() throws(StoreError) {
    var problems = FieldProblems()
    if self == MailboxChange(version: version) { problems.add("", "required", "must change something") }
    try problems.throwIfAny()
  }
}
