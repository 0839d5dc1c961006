import PostriderCore

/// Everything in quarantine belongs to the first organization.
extension FakeAdminStore {
  func quarantine(
    _ filter: QuarantineFilter, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<QuarantinedMessage> {
    try checked { state in
      state.lastQuarantineFilter = filter
      return self.page(principal.organizationID == OrganizationID(1) ? state.quarantine : [], page)
    }
  }

  func quarantinedMessage(_ id: QuarantineID, for principal: Principal) async throws -> QuarantinedMessage {
    try checked { state in
      guard principal.organizationID == OrganizationID(1), let found = state.quarantine.first(where: { $0.id == id })
      else { throw StoreError.notFound("message in quarantine") }
      return found
    }
  }

  func rawQuarantined(
    _ id: QuarantineID, for principal: Principal
  ) async throws -> AsyncThrowingStream<[UInt8], any Error> {
    let message = try await quarantinedMessage(id, for: principal)
    guard message.sizeOctets != nil else { throw StoreError.conflict(code: "not-kept", message: "nothing is kept") }
    let chunks = try checked { state in state.keptRaw[id] ?? [] }
    return AsyncThrowingStream { continuation in
      for chunk in chunks { continuation.yield(chunk) }
      continuation.finish()
    }
  }

  func reprocess(
    _ ids: [QuarantineID], dryRun: Bool, by principal: Principal
  ) async throws -> [QuarantineResult] {
    try answer("reprocess", ids, dryRun, principal)
  }

  func discard(_ ids: [QuarantineID], dryRun: Bool, by principal: Principal) async throws -> [QuarantineResult] {
    try answer("discard", ids, dryRun, principal)
  }

  private func answer(
    _ verb: String, _ ids: [QuarantineID], _ dryRun: Bool, _ principal: Principal
  ) throws -> [QuarantineResult] {
    try checked { state in
      let numbers = ids.map(\.description).joined(separator: ",")
      state.writes.append("\(verb) \(numbers)\(dryRun ? " dry" : "") by \(principal.name)")
      let known = principal.organizationID == OrganizationID(1) ? Set(state.quarantine.map(\.id)) : []
      return ids.map {
        known.contains($0)
          ? QuarantineResult(id: $0, ok: true)
          : QuarantineResult(id: $0, ok: false, code: "not-found", message: "there is no such message in quarantine")
      }
    }
  }
}
