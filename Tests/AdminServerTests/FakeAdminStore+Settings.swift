import PostriderCore

extension FakeAdminStore {
  func emailSettings(for principal: Principal) async throws -> EmailSettings { try checked { $0.emailSettings } }

  func updateEmailSettings(_ change: EmailSettingsChange, by principal: Principal) async throws -> EmailSettings {
    try checked { state in
      if let version = change.version, version != state.emailSettings.version { throw StoreError.stale }
      state.emailSettings = try change.applied(to: state.emailSettings)
      state.emailSettings.version += 1
      return state.emailSettings
    }
  }

  func deleteProfile(
    _ id: ProfileID, confirmsUnlinking: Bool, dryRun: Bool, by principal: Principal
  ) async throws -> ProfileDeletion {
    let profile = try await profile(id, for: principal)
    return try checked { state in
      let count = state.mailboxes.count { $0.profileID == id }
      if dryRun { return ProfileDeletion(id: id, name: profile.name, mailboxes: count, isDone: false) }
      if count > 0 && !confirmsUnlinking {
        throw StoreError.conflict(code: "has-mailboxes", message: "\(count) mailboxes")
      }
      state.profiles.removeAll { $0.id == id }
      for index in state.mailboxes.indices where state.mailboxes[index].profileID == id {
        state.mailboxes[index].profileID = nil
      }
      return ProfileDeletion(id: id, name: profile.name, mailboxes: count, isDone: true)
    }
  }

  func deleteMailboxes(
    _ request: MailboxDeletionRequest, by principal: Principal
  ) async throws -> [MailboxDeletion] {
    try checked { state in
      let own = state.mailboxes.filter { $0.organizationID == principal.organizationID }
      let answers = request.ids.map { id in
        own.first { $0.id == id }.map { MailboxDeletion(id: id, ok: true, address: $0.address) }
          ?? MailboxDeletion(id: id, ok: false, code: "not-found", message: "There is no such mailbox.")
      }
      let dryRun = request.dryRun ?? false
      state.writes.append("delete \(request.ids) \(request.confirmsUnsentMail ?? false) \(dryRun)")
      if !dryRun { state.mailboxes.removeAll { mailbox in answers.contains { $0.ok && $0.id == mailbox.id } } }
      return answers
    }
  }

  func editMailboxes(_ request: MailboxEditRequest, by principal: Principal) async throws -> [MailboxEditResult] {
    try checked { state in
      try request.ids.map { id in
        let found = state.mailboxes.firstIndex { $0.id == id && $0.organizationID == principal.organizationID }
        guard let found else { return MailboxEditResult(id: id, ok: false, code: "not-found", message: "none") }
        let before = state.mailboxes[found]
        let after = try MailboxRules.resolve(request.change, of: before, logins: [:]).mailbox
        if request.dryRun != true { state.mailboxes[found] = after }
        return MailboxEditResult(id: id, ok: true, before: before, mailbox: after)
      }
    }
  }

  func applyDefaults(
    to ids: [MailboxID], dryRun: Bool, by principal: Principal
  ) async throws -> AppliedDefaults {
    let settings = try await emailSettings(for: principal)
    var change = MailboxChange(profileID: settings.defaultProfileID)
    change.incomingMethod = settings.incomingMethod
    change.outgoingMethod = settings.outgoingMethod
    let edits = try await editMailboxes(
      MailboxEditRequest(ids: ids, change: change, dryRun: dryRun), by: principal)
    return AppliedDefaults(settings: settings, results: edits)
  }

  func alert(_ id: AlertID, for principal: Principal) async throws -> Alert {
    try checked { state in
      guard let alert = state.alerts.first(where: { $0.id == id }) else { throw StoreError.notFound("alert") }
      return alert
    }
  }

  func dismissAlerts(_ ids: [AlertID], by principal: Principal) async throws -> [AlertResult] {
    try checked { state in
      ids.map { id in
        guard let index = state.alerts.firstIndex(where: { $0.id == id }) else {
          return AlertResult(id: id, ok: false, code: "not-found", message: "There is no such alert.")
        }
        state.alerts[index].resolvedAt = Self.date
        state.alerts[index].dismissedBy = principal.name
        return AlertResult(id: id, ok: true)
      }
    }
  }

  func deleteAlerts(_ filter: AlertFilter, dryRun: Bool, by principal: Principal) async throws -> Int {
    try checked { state in
      state.lastAlertFilter = filter
      let gone = state.alerts.filter { filter.level == nil || $0.level == filter.level }
      if !dryRun { state.alerts.removeAll { gone.contains($0) } }
      return gone.count
    }
  }
}
