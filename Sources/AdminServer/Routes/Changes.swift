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
    sendQuota?.check(at: "/sendQuota", &problems)
    sharedSendQuota?.check(at: "/sharedSendQuota", &problems)
    if let failureNoticeTo, !failureNoticeTo.isEmpty {
      AddressRules.check(failureNoticeTo, at: "/failureNoticeTo", &problems)
    }
    if self == ProfileChange(version: version) { problems.add("", "required", "must change something") }
    try problems.throwIfAny()
  }
}

extension MailboxChange {
  /// Throws ``StoreError/invalid(_:)`` for a change of nothing.
  func check() throws(StoreError) {
    var problems = FieldProblems()
    sendQuota?.check(at: "/sendQuota", &problems)
    if sendQuota != nil && resetsSendQuota == true {
      problems.add("/resetsSendQuota", "not-allowed", "either sets a quota or goes back to the profile's")
    }
    if self == MailboxChange(version: version) { problems.add("", "required", "must change something") }
    try problems.throwIfAny()
  }
}
