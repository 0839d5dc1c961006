/// What becomes of a profile by a change.
public struct ResolvedChange: Sendable {
  /// The profile afterwards; its version, times and counts are still the former ones.
  public var profile: ServerProfile
  /// A new password of the profile's own account, by direction; absent where it stays or goes.
  public var passwords: [Direction: Secret]
  /// Directions whose mailboxes have to be tested again (feature M6).
  public var newlyUntested: Set<Direction>
}

extension ProfileRules {
  /// Applies a change to a profile under the same rules as a new one has; throws ``StoreError/invalid(_:)`` with every
  /// wrong field.
  public func resolve(_ change: ProfileChange, of present: ServerProfile) throws(StoreError) -> ResolvedChange {
    let clears = Set(change.clears ?? [])
    let same = change.useSameSettingsForOutgoing ?? present.useSameSettingsForOutgoing
    let draft = ProfileDraft(
      name: change.name ?? present.name, description: change.description ?? present.description, type: present.type,
      incoming: merged(change.incoming, present.incoming, .incoming),
      outgoing: merged(change.outgoing, present.outgoing, .outgoing), useSameSettingsForOutgoing: same,
      minimumPollingIntervalMinutes: change.minimumPollingIntervalMinutes ?? present.minimumPollingIntervalMinutes,
      maximumConcurrentConnections: change.maximumConcurrentConnections ?? present.maximumConcurrentConnections,
      connectionTimeoutSeconds: change.connectionTimeoutSeconds ?? present.connectionTimeoutSeconds,
      maximumFailedLogins: change.maximumFailedLogins ?? present.maximumFailedLogins,
      caCertificatesPEM: change.caCertificatesPEM)
    var problems = check(change, draft, present)
    // What was allowed once stays; only asking for it anew is not.
    let asksForNone = change.incoming?.tls == TLSMode.none || change.outgoing?.tls == TLSMode.none
    let resolved: ResolvedProfile
    do {
      resolved = try ProfileRules(allowsNonTLSMail: allowsNonTLSMail || !asksForNone).resolve(draft)
    } catch {
      guard case .invalid(let found) = error else { throw error }
      problems.add(found)
      throw .invalid(problems.problems)
    }
    try problems.throwIfAny()

    var profile = present
    profile.name = draft.name
    profile.description = draft.description ?? ""
    profile.isDefault = change.isDefault ?? present.isDefault
    profile.isActive = change.isActive ?? present.isActive
    profile.weight = change.weight ?? present.weight
    profile.useSameSettingsForOutgoing = same
    profile.processEmailFrom =
      clears.contains(.processEmailFrom) ? nil : change.processEmailFrom ?? present.processEmailFrom
    profile.caCertificatesPEM =
      clears.contains(.caCertificatesPEM) ? nil : change.caCertificatesPEM ?? present.caCertificatesPEM
    profile.minimumPollingIntervalMinutes = draft.minimumPollingIntervalMinutes ?? 0
    profile.maximumConcurrentConnections = draft.maximumConcurrentConnections ?? 10
    profile.connectionTimeoutSeconds = draft.connectionTimeoutSeconds ?? 30
    profile.maximumFailedLogins = draft.maximumFailedLogins ?? 10
    profile.sendQuota = change.sendQuota ?? present.sendQuota
    profile.sharedSendQuota = change.sharedSendQuota ?? present.sharedSendQuota
    if let notice = change.failureNoticeTo { profile.failureNoticeTo = notice.isEmpty ? nil : notice }
    profile.ownerID = change.ownerID ?? present.ownerID
    var passwords: [Direction: Secret] = [:]
    var untested: Set<Direction> = []
    for direction in Direction.allCases {
      let former = present.settings(direction)
      var settings = direction == .incoming ? resolved.incoming : resolved.outgoing
      let password = direction == .incoming ? resolved.incomingPassword : resolved.outgoingPassword
      settings.passwordSet = settings.credentials == .profile && (password != nil || former.passwordSet)
      if let password { passwords[direction] = password }
      if settings != former || password != nil { untested.insert(direction) }
      if direction == .incoming { profile.incoming = settings } else { profile.outgoing = settings }
    }
    return ResolvedChange(profile: profile, passwords: passwords, newlyUntested: untested)
  }

  /// What only a change can do wrong.
  private func check(_ change: ProfileChange, _ draft: ProfileDraft, _ present: ServerProfile) -> FieldProblems {
    var problems = FieldProblems()
    change.sendQuota?.check(at: "/sendQuota", &problems)
    change.sharedSendQuota?.check(at: "/sharedSendQuota", &problems)
    if let notice = change.failureNoticeTo, !notice.isEmpty {
      AddressRules.check(notice, at: "/failureNoticeTo", isOthers: true, &problems)
    }
    if let weight = change.weight { problems.check(weight, at: "/weight", in: 1...100) }
    if change.isDefault == false && present.isDefault {
      problems.add("/isDefault", "not-allowed", "is taken by another profile that becomes the default, not given up")
    }
    for (field, pointer) in [
      (change.processEmailFrom == nil ? nil : ProfileChange.Clearable.processEmailFrom, "/processEmailFrom"),
      (change.caCertificatesPEM == nil ? nil : .caCertificatesPEM, "/caCertificatesPEM"),
    ] where field.map({ (change.clears ?? []).contains($0) }) == true {
      problems.add(pointer, "contradiction", "is set and named in `clears`")
    }
    // The stored password is sealed for its place and is never read back to be copied.
    let copiesAccount =
      draft.useSameSettingsForOutgoing == true && draft.incoming?.credentials == .profile
      && !(present.useSameSettingsForOutgoing && present.incoming.credentials == .profile)
    if copiesAccount && present.incoming.passwordSet && draft.incoming?.password == nil {
      problems.add("/incoming/password", "required", "has to be given again to be used for outgoing as well")
    }
    return problems
  }

  private func merged(_ change: ServerChange?, _ present: ServerSettings, _ direction: Direction) -> ServerDraft {
    let tls = change?.tls ?? present.tls
    let keepsPort = tls == present.tls || present.port != Preset.defaultPort(direction, present.tls)
    let credentials = change?.credentials ?? present.credentials
    // Another source of credentials begins anew; so does another account with its password.
    let keepsLogin = credentials == present.credentials
    return ServerDraft(
      host: change?.host ?? present.host, port: change?.port ?? (keepsPort ? present.port : nil), tls: tls,
      credentials: credentials, mechanism: change?.mechanism ?? (keepsLogin ? present.mechanism : nil),
      userName: change?.userName ?? (keepsLogin ? present.userName : nil), password: change?.password,
      loginAs: change?.loginAs ?? (keepsLogin ? present.loginAs?.rawValue : nil))
  }
}
