import FoundationEssentials
import PostriderCore

/// The hot row of a claimed job with the versions of what its settings are made of.
private struct HotRow: Sendable {
  var job: JobID
  var profile: ProfileID?
  var enabled: Bool
  var paused: Bool
  var profileIsActive: Bool
  var due: Bool
  var generation: Int64
  var requested: Int64
  var served: Int64
  var failures: Int
  var failureCode: String?
  var dueAt: Date
  var reason: String
  var verbose: Bool
  var enabledDirections: Set<Direction>
  var proven: Set<Direction>
  var reprocesses: Bool
  var reimport: ReimportChoice?
  var version: SettingsVersion?
}

extension PostgresStore {
  /// Checks a claimed batch with one statement on the hot rows and adds the (cached) settings.
  ///
  /// A password that cannot be decrypted stops neither the others of its batch nor its own session: the session runs
  /// without it and fails with ``FailureCode/credentialsUnreadable``, so that people see it. A skipped job would stay
  /// due for ever and say nothing.
  public func check(_ leases: [Lease]) async throws -> [JobID: CheckedJob] {
    if leases.isEmpty { return [:] }
    let rows = try await hotRows(leases)
    let missing = rows.values.compactMap { row -> MailboxID? in
      guard row.enabled, row.profileIsActive, !row.paused, row.due, let version = row.version else { return nil }
      return settings.value(row.job.mailbox, version: version) == nil ? row.job.mailbox : nil
    }
    let loaded = try await loadSettings(of: Array(Set(missing)))
    var checked: [JobID: CheckedJob] = [:]
    for lease in leases { checked[lease.job] = check(lease, rows[lease.job], loaded) }
    return checked
  }

  private func check(_ lease: Lease, _ row: HotRow?, _ loaded: [MailboxID: CachedSettings]) -> CheckedJob {
    guard let row else { return .skip("gone") }
    guard !row.paused else { return .skip("paused") }
    guard row.enabled, row.profileIsActive else { return .skip("disabled") }
    guard let version = row.version, row.profile == lease.profile else { return .skip("moved") }
    guard row.due else { return .skip("not-due") }
    guard let cached = loaded[row.job.mailbox] ?? settings.value(row.job.mailbox, version: version) else {
      return .skip("gone")
    }
    var settings = cached.settings
    settings.incomingCredentials = open(cached.incoming, &settings)
    settings.outgoingCredentials = open(cached.outgoing, &settings)
    settings.verbose = row.verbose
    return .run(
      Assignment(
        settings: settings, generation: row.generation, requested: row.requested, served: row.served,
        failures: row.failures, lastFailureCode: row.failureCode.flatMap { FailureCode(rawValue: $0) },
        dueAt: row.dueAt, trigger: row.trigger, enabled: row.enabledDirections, proven: row.proven,
        reprocesses: row.reprocesses, reimport: row.reimport))
  }

  /// Decrypts credentials; notes the problem in the settings when that fails.
  private func open(_ sealed: SealedCredentials?, _ settings: inout SessionSettings) -> Credentials? {
    guard let sealed else { return nil }
    do throws(StoreError) {
      guard let proof = try open(sealed.proof, &settings) else { return nil }
      return Credentials(
        userName: sealed.userName, proof: proof, authorizationIdentity: sealed.authorizationIdentity)
    } catch {
      settings.credentialsProblem = .credentialsUnreadable
      if case .missingKey(let id) = error {
        settings.credentialsProblemDetail = "its key \(id) is not in the worker's key ring"
      }
      logger.error(
        "A stored password cannot be decrypted",
        metadata: ["mailbox.id": "\(settings.mailboxID)", "profile.id": "\(settings.profileID)", "error": "\(error)"])
      return nil
    }
  }

  private func open(
    _ proof: SealedCredentials.Proof, _ settings: inout SessionSettings
  ) throws(StoreError) -> Credentials.Proof? {
    switch proof {
    case .password(let sealed, let place): return .password(try unseal(sealed, place))
    case .workerIdentity: return .workerIdentity
    case .none(let problem):
      settings.credentialsProblem = problem
      return nil
    }
  }

  /// A lane opened beside lane 0 has work while mail is due and nothing else keeps the mailbox waiting (the second is what
  /// an outcome adds), or when a session of this lane left a message in the middle.
  private func hotRows(_ leases: [Lease]) async throws -> [JobID: HotRow] {
    let rows = try await pool.transaction(.worker) { db in
      try db.commit([
        .kept(
          """
          SELECT i.mailbox_id, i.kind, i.lane, s.profile_id, s.enabled,
            coalesce(m.paused_at, p.paused_at, o.paused_at) IS NOT NULL, coalesce(p.is_active, true),
            CASE i.lane WHEN 0 THEN s.requested > s.served OR coalesce(s.next_due_at <= now(), false)
              ELSE EXISTS (SELECT FROM outgoing_email e
                  WHERE e.mailbox_id = i.mailbox_id AND e.state = 'sending' AND e.lane = i.lane)
                OR (s.requested > s.served OR coalesce(s.next_due_at <= now() + interval '1 second', false))
                  AND EXISTS (SELECT FROM outgoing_email e
                    WHERE e.mailbox_id = i.mailbox_id AND e.state = 'pending-send' AND e.next_try_at <= now()) END,
            s.generation, s.requested, s.served, s.failures, s.failure_code, coalesce(s.next_due_at, now()), s.reason,
            s.verbose_runs > 0, m.incoming_enabled, m.outgoing_enabled, m.incoming_status = 'success',
            m.outgoing_status = 'success', s.kind = 'p' AND EXISTS (SELECT FROM quarantine q
              WHERE q.mailbox_id = s.mailbox_id AND q.reprocess_requested_at IS NOT NULL),
            (SELECT r.choice FROM uidl_reset r WHERE r.mailbox_id = s.mailbox_id AND s.kind = 'p'), m.version,
            p.version, o.version
          FROM unnest($1, $2, $3) AS i (mailbox_id, kind, lane)
          JOIN mailbox_schedule s ON s.mailbox_id = i.mailbox_id AND s.kind = i.kind
          JOIN mailbox m ON m.id = s.mailbox_id
          JOIN organization o ON o.id = s.organization_id
          LEFT JOIN server_profile p ON p.id = s.profile_id
          """,
          [
            .ids(leases.map(\.job.mailbox)), .texts(leases.map(\.job.kind.rawValue)),
            .ints(leases.map { Int64($0.job.lane) }),
          ])
      ])[0].map { try HotRow(&$0) }
    }
    return Dictionary(rows.map { ($0.job, $0) }, uniquingKeysWith: { first, _ in first })
  }
}

extension HotRow {
  fileprivate init(_ row: inout Row) throws {
    job = JobID(mailbox: try row.id(), kind: try row.word(), lane: Int(try row.int()))
    profile = try row.idOrNil()
    enabled = try row.bool()
    paused = try row.bool()
    profileIsActive = try row.bool()
    due = try row.bool()
    generation = try row.int()
    requested = try row.int()
    served = try row.int()
    failures = Int(try row.int())
    failureCode = try row.textOrNil()
    dueAt = try row.date()
    reason = try row.text()
    verbose = try row.bool()
    enabledDirections = []
    if try row.bool() { enabledDirections.insert(.incoming) }
    if try row.bool() { enabledDirections.insert(.outgoing) }
    proven = []
    if try row.bool() { proven.insert(.incoming) }
    if try row.bool() { proven.insert(.outgoing) }
    reprocesses = try row.bool()
    reimport = try row.textOrNil().flatMap { ReimportChoice(rawValue: $0) }
    let mailbox = try row.int()
    let profileVersion = try row.intOrNil()
    let organization = try row.int()
    if let profile, let profileVersion {
      version = SettingsVersion(
        mailbox: mailbox, profile: profile, profileVersion: profileVersion, organization: organization)
    }
  }

  /// Why it runs, in the order in which the reasons count.
  fileprivate var trigger: RunTrigger {
    if requested > served { return .request }
    if failures > 0 { return .retry }
    return reason == "enabled" ? .enabled : .slot
  }
}
