import PostriderCore

extension ProfileChange {
  /// Throws ``StoreError/invalid(_:)`` for a change of nothing.
  func check() throws(StoreError) {
    var problems = FieldProblems()
    var rest = self
    (rest.version, rest.confirmsNewTests) = (nil, nil)
    if rest == ProfileChange() { problems.add("", "required", "must change something") }
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
