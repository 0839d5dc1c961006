import PostriderCore

extension FakeAdminStore {
  func updateProfile(
    _ id: ProfileID, _ change: ProfileChange, rules: ProfileRules, by principal: Principal
  ) async throws -> ServerProfile {
    let present = try await profile(id, for: principal)
    if let version = change.version, version != present.version { throw StoreError.stale }
    var changed = try rules.resolve(change, of: present).profile
    return try checked { state in
      state.writes.append("profile \(id)")
      changed.version += 1
      state.profiles = state.profiles.map { $0.id == id ? changed : $0 }
      return changed
    }
  }

  func updateMailbox(_ id: MailboxID, _ change: MailboxChange, by principal: Principal) async throws -> Mailbox {
    var mailbox = try await mailbox(id, for: principal)
    if let version = change.version, version != mailbox.version { throw StoreError.stale }
    let resolved = try MailboxRules.resolve(change, of: mailbox, logins: [.incoming: .mailbox, .outgoing: .mailbox])
    return try checked { state in
      state.writes.append("mailbox \(id)")
      mailbox = resolved.mailbox
      mailbox.version += 1
      state.mailboxes = state.mailboxes.map { $0.id == id ? mailbox : $0 }
      return mailbox
    }
  }

  func setPaused(_ paused: Bool, _ scope: PauseScope, by principal: Principal) async throws {
    try checked { state in
      let (word, id): (String, Int64?) =
        switch scope {
        case .organization: ("organization", nil)
        case .profile(let id): ("profile", id.value)
        case .mailbox(let id): ("mailbox", id.value)
        }
      state.writes.append("\(paused ? "pause" : "resume") \(word) \(id ?? 0) by \(principal.name)")
      state.pauses.removeAll { $0.scope == word && $0.id == id }
      if paused { state.pauses.append(Pause(scope: word, id: id, name: "x", since: Self.date, by: principal.name)) }
    }
  }

  func pauses(_ page: PageRequest, for principal: Principal) async throws -> Page<Pause> {
    try checked { state in self.page(state.pauses, page) }
  }

  func setAsideJobs(_ page: PageRequest, for principal: Principal) async throws -> Page<SetAsideJob> {
    try checked { state in self.page(state.setAside, page) }
  }

  func releaseJobs(_ jobs: [JobID], by principal: Principal) async throws -> [JobID] {
    try checked { state in
      let known = Set(state.setAside.map(\.job))
      state.writes.append("release \(jobs.map(\.description).joined(separator: " "))")
      return jobs.filter { known.contains($0.description) }
    }
  }

  func profileActivity(for principal: Principal) async throws -> [ProfileActivity] {
    try checked { state in
      state.activityCalls += 1
      return state.activity[principal.organizationID] ?? []
    }
  }

  func requestRepair(by principal: Principal) async throws -> RepairRequest {
    try checked { state in
      let request = RepairRequest(
        id: Int64(state.repairs.count + 1), requestedAt: Self.date, by: principal.name)
      state.repairs.append(request)
      return request
    }
  }

  func repairRequest(_ id: Int64, for principal: Principal) async throws -> RepairRequest {
    try checked { state in
      guard let request = state.repairs.first(where: { $0.id == id }) else { throw StoreError.notFound("repair") }
      return request
    }
  }
}
