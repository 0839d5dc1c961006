import Foundation
import PostriderCore
import PostriderTesting
import Testing

@testable import PostgresStore

@Suite("WorkerStore: the check of claimed jobs")
struct CheckTests {
  @Test("each reason to skip has its word")
  func skips() async throws {
    try await TestDatabase.with { database in
      let profile = try await database.profile()
      let other = try await database.profile("Other", isDefault: false)
      let running = try await database.runningMailbox("a@example.com")
      let pending = try await database.mailbox("b@example.com")
      let leases = [
        database.lease(running.id, .poll, profile.id), database.lease(pending.id, .poll, profile.id),
        database.lease(running.id, .send, profile.id), database.lease(running.id, .test, other.id),
        database.lease(MailboxID(99_999), .poll, profile.id),
      ]
      let checked = try await database.store.check(leases)
      guard case .run(let assignment) = checked[leases[0].job] else {
        Issue.record("the running mailbox may not run: \(String(describing: checked[leases[0].job]))")
        return
      }
      #expect(assignment.trigger == .enabled)
      #expect(checked[leases[1].job] == .skip("disabled"))
      #expect(checked[leases[2].job] == .skip("not-due"))
      #expect(checked[leases[3].job] == .skip("moved"))
      #expect(checked[leases[4].job] == .skip("gone"))
      #expect(try await database.store.check([]).isEmpty)
    }
  }

  @Test("a session gets its settings, and sees an edit at once")
  func settings() async throws {
    try await TestDatabase.with { database in
      let profile = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      var settings = try await database.assignment(mailbox, .poll).1.settings
      #expect(settings.address == "a@example.com" && settings.profileID == profile.id)
      #expect(settings.incoming.host == "pop.example.com" && settings.incoming.port == 995)
      #expect(settings.outgoing.host == "smtp.example.com" && settings.outgoing.port == 465)
      #expect(settings.incomingCredentials == Credentials(userName: "a@example.com", password: Secret("hunter2")))
      #expect(settings.outgoingCredentials == settings.incomingCredentials)
      #expect(settings.pollingInterval == .seconds(300) && settings.connectionTimeout == .seconds(30))
      #expect(settings.processEmailFrom == nil && !settings.verbose)

      try await database.sql(
        """
        UPDATE server_profile SET version = version + 1, incoming_host = 'new.example.com',
          minimum_polling_interval_minutes = 7, process_email_from = '2025-01-01'
        """)
      try await database.sql(
        "UPDATE mailbox SET version = version + 1, process_email_from = '2025-02-01', user_name = 'ada'")
      try await database.sql("UPDATE mailbox_schedule SET verbose_runs = 2")
      settings = try await database.assignment(mailbox, .poll).1.settings
      #expect(settings.incoming.host == "new.example.com" && settings.pollingInterval == .seconds(420))
      #expect(settings.processEmailFrom == Date(timeIntervalSince1970: 1_738_368_000))
      #expect(settings.incomingCredentials?.userName == "ada" && settings.verbose)

      try await database.sql("UPDATE mailbox SET version = version + 1, allows_credentials = false")
      #expect(try await database.assignment(mailbox, .poll).1.settings.incomingCredentials == nil)
    }
  }

  @Test(
    "a password whose key is gone, or of another key with its id, runs without it and says so",
    arguments: [true, false])
  func unreadable(sameID: Bool) async throws {
    try await TestDatabase.with { database in
      let profile = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let store = PostgresStore(
        configuration: PostgresStoreConfiguration(
          url: database.server.url("pr_app", database.name),
          keyRing: KeyRing.generate(id: sameID ? database.ring.ids[0] : "other")), logger: .test)
      let lease = database.lease(mailbox.id, .poll, profile.id)
      let checked = try await store.check([lease])[lease.job]
      await store.close()
      guard case .run(let assignment) = checked else {
        Issue.record("does not run: \(String(describing: checked))")
        return
      }
      #expect(assignment.settings.credentialsProblem == .credentialsUnreadable)
      #expect(assignment.settings.incomingCredentials == nil && assignment.settings.outgoingCredentials == nil)
    }
  }

  @Test("a damaged password does not stop the others of its batch, nor the other direction")
  func damaged() async throws {
    try await TestDatabase.with { database in
      let draft = ProfileDraft(
        name: "P", type: .pop3SMTP, isDefault: true, incoming: ServerDraft(host: "pop.example.com"),
        outgoing: ServerDraft(
          host: "smtp.example.com", credentials: .profile, userName: "svc", password: Secret("service")),
        useSameSettingsForOutgoing: false)
      let profile = try await database.store.createProfile(try ProfileRules().resolve(draft), by: database.principal)
      let damaged = try await database.runningMailbox("a@example.com")
      let sound = try await database.runningMailbox("b@example.com")
      try await database.sql(
        "UPDATE mailbox SET version = version + 1, password = '\\x0102' WHERE id = $1", [.id(damaged.id)])
      let leases = [database.lease(damaged.id, .poll, profile.id), database.lease(sound.id, .poll, profile.id)]
      let checked = try await database.store.check(leases)
      guard case .run(let first) = checked[leases[0].job], case .run(let second) = checked[leases[1].job] else {
        Issue.record("do not run: \(checked)")
        return
      }
      #expect(first.settings.credentialsProblem == .credentialsUnreadable)
      #expect(first.settings.incomingCredentials == nil)
      #expect(first.settings.outgoingCredentials == Credentials(userName: "svc", password: Secret("service")))
      #expect(second.settings.credentialsProblem == nil)
      #expect(second.settings.incomingCredentials?.password == Secret("hunter2"))
    }
  }

  @Test("the cache keeps at most its capacity and only exact versions")
  func cache() {
    let cache = SettingsCache(capacity: 2)
    let server = ServerSettings(host: "h", port: 1, tls: .implicit, credentials: .mailbox)
    func version(_ mailbox: Int64) -> SettingsVersion {
      SettingsVersion(mailbox: mailbox, profile: ProfileID(1), profileVersion: 1, organization: 1)
    }
    for id in 1...5 {
      let mailbox = MailboxID(Int64(id))
      let settings = SessionSettings(
        organizationID: OrganizationID(1), mailboxID: mailbox, profileID: ProfileID(1), address: "a", incoming: server,
        outgoing: server)
      cache.insert(CachedSettings(settings: settings), for: mailbox, version: version(1))
      #expect(cache.value(mailbox, version: version(1)) != nil)
      #expect(cache.value(mailbox, version: version(2)) == nil)
    }
    #expect(cache.count == 2)
  }
}

@Suite("WorkerStore: outcomes")
struct OutcomeTests {
  @Test("an outcome writes run, steps, next due and directions; a person can read it all")
  func written() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      let slot = Date(timeIntervalSince1970: (Date().timeIntervalSince1970 + 300).rounded())
      let steps = [
        TraceStep(
          direction: .incoming, name: .connect, tried: "pop.example.com:995", result: .ok, startedAt: Date(),
          milliseconds: 12.5),
        TraceStep(
          direction: .incoming, name: .authenticate, tried: "PLAIN", result: .failed, startedAt: Date(),
          milliseconds: 3, serverWords: "-ERR no", code: .authRejected),
      ]
      let failure = Failure(.authRejected, serverWords: "-ERR no", context: "log in")
      let result = try await database.store.commit(
        database.outcome(
          lease, assignment, next: NextDue(at: slot, reason: "auth.rejected"), failures: 1,
          alerts: [.raise(AlertDraft(level: .warning, code: "auth.rejected", text: "no", parameters: ["host": "x"]))],
          failure: failure, steps: steps))
      guard case .written(let id) = result else {
        Issue.record("fenced")
        return
      }
      let run = try await database.store.run(id, for: database.principal)
      #expect(run.failure == failure && run.steps.map(\.name) == [.connect, .authenticate])
      #expect(run.steps.last?.code == .authRejected && run.steps.first?.milliseconds == 12.5)
      #expect(run.result == .failure && run.fence == lease.fence && run.messagesStored == 2)
      let after = try await database.store.mailbox(mailbox.id, for: database.principal)
      #expect(after.incoming.nextRunAt == slot && after.incoming.nextRunReason == "auth.rejected")
      #expect(after.incoming.lastRunAt != nil && after.lastPollRunID == id)
      let listed = try await database.store.runs(
        RunFilter(mailboxID: mailbox.id, kind: .poll), PageRequest(), for: database.principal)
      #expect(listed.items.map(\.id) == [id] && listed.items[0].steps.isEmpty && listed.total == 1)

      // The next check sees the failure.
      try await database.sql("UPDATE mailbox_schedule SET next_due_at = now() WHERE kind = 'p'")
      let again = try await database.assignment(mailbox, .poll).1
      #expect(again.failures == 1 && again.lastFailureCode == .authRejected && again.trigger == .retry)
    }
  }

  @Test("a stale fence, a changed generation and another organization change nothing and are counted")
  func fencing() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let (old, oldAssignment) = try await database.assignment(mailbox, .poll)
      let (new, newAssignment) = try await database.assignment(mailbox, .poll)
      let next = NextDue(at: Date() + 300, reason: "slot")
      #expect(try await database.store.commit(database.outcome(new, newAssignment, next: next)) != .fenced)
      // Runnable at once, so that what refuses the writers below is their guard alone.
      try await database.sql("UPDATE mailbox_schedule SET next_due_at = now() WHERE kind = 'p'")
      let before = try await database.dump("mailbox_schedule", "run", "ledger", "email", "alert", "mailbox")

      let stale = database.outcome(
        old, oldAssignment, directions: [DirectionChange(.incoming, status: .failure, enabled: false)],
        alerts: [.raise(AlertDraft(level: .error, code: "tcp.closed", text: "x"))])
      #expect(try await database.store.commit(stale) == .fenced)
      let writer = database.guardian(old, oldAssignment)
      await #expect(throws: FencedError(writer: writer)) {
        try await database.store.store([.sample("1")], writer: writer)
      }
      await #expect(throws: FencedError.self) { try await database.store.skip(["1": .own], writer: writer) }
      await #expect(throws: FencedError.self) {
        try await database.store.messageFailed(uidl: "1", failure: Failure(.messageStore), raw: nil, writer: writer)
      }
      var foreign = try await database.assignment(mailbox, .poll)
      foreign.1.generation += 1
      #expect(try await database.store.commit(database.outcome(foreign.0, foreign.1)) == .fenced)
      var stranger = database.outcome(foreign.0, newAssignment)
      stranger.writer.organizationID = OrganizationID(99)
      #expect(try await database.store.commit(stranger) == .fenced)
      #expect(try await database.dump("mailbox_schedule", "run", "ledger", "email", "alert", "mailbox") == before)
      #expect(database.store.fencedWrites == 6)
    }
  }

  @Test("an outcome sent again after a lost answer is written once and says so")
  func sentTwice() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      let outcome = database.outcome(lease, assignment)
      let first = try await database.store.commit(outcome)
      #expect(try await database.store.commit(outcome) == first)
      #expect(try await database.int("SELECT count(*) FROM run WHERE kind = 'p'") == 1)
    }
  }

  @Test("a request made while the job runs is not lost")
  func requestsSurvive() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      #expect(try await database.store.requestPoll(of: [mailbox.id], by: database.principal).allSatisfy(\.ok))
      let later = NextDue(at: Date() + 300, reason: "slot")
      _ = try await database.store.commit(database.outcome(lease, assignment, next: later))
      let again = try await database.assignment(mailbox, .poll)
      #expect(again.1.trigger == .request && again.1.requested == assignment.requested + 1)
      // Due just ahead, so that the scheduler's watermark cannot have passed it.
      #expect(
        try await eventually(within: .seconds(60)) {
          try await database.store.due(after: .init(dueMicroseconds: 0), limit: 10).jobs.map(\.jobClass)
            == [.interactive]
        })

      _ = try await database.store.commit(database.outcome(again.0, again.1, next: later))
      let served = try await database.store.mailbox(mailbox.id, for: database.principal)
      #expect(served.pollsServed == served.pollsRequested && served.pollsRequested == 1)
      let third = database.lease(mailbox.id, .poll, lease.profile)
      #expect(try await database.store.check([third])[third.job] == .skip("not-due"))
      #expect(try await database.int("SELECT job_class FROM mailbox_schedule WHERE kind = 'p'") == 2)
    }
  }

  @Test("outcomes are committed in groups; one that cannot be written fails alone")
  func poisonedBatch() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      var ids: [MailboxID] = []
      for index in 0..<40 { ids.append(try await database.mailbox("m\(index)@example.com").id) }
      try await database.sql("UPDATE mailbox_schedule SET enabled = true, next_due_at = now() WHERE kind = 'p'")
      let profile = try await database.store.queueProfiles()[0].id
      let leases = ids.map { database.lease($0, .poll, profile) }
      let checked = try await database.store.check(leases)
      let outcomes = leases.enumerated().compactMap { index, lease -> SessionOutcome? in
        guard case .run(let assignment) = checked[lease.job] else { return nil }
        var outcome = database.outcome(lease, assignment)
        // One is refused by the client (NUL), one by the server (a check of the column).
        if index == 7 { outcome.alerts = [.raise(AlertDraft(level: .error, code: "x", text: "a\0b"))] }
        if index == 23 {
          outcome.run.startedAt = outcome.run.finishedAt; outcome.run.octetsStored = 1; outcome.failures = Int.max
        }
        return outcome
      }
      #expect(outcomes.count == 40)
      let results = await withTaskGroup(of: (Int, Result<OutcomeResult, any Error>).self) { group in
        for (index, outcome) in outcomes.enumerated() {
          group.addTask {
            do { return (index, .success(try await database.store.commit(outcome))) } catch {
              return (index, .failure(error))
            }
          }
        }
        return await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
      }
      let failed = results.filter { if case .failure = $0.value { true } else { false } }.keys.sorted()
      #expect(failed == [7, 23])
      let runs = try await database.sql("SELECT DISTINCT mailbox_id FROM run WHERE kind = 'p'").map { try $0.int() }
      #expect(Set(runs) == Set(ids.enumerated().filter { ![7, 23].contains($0.offset) }.map(\.element.value)))
      #expect(try await database.int("SELECT count(*) FROM run WHERE kind = 'p'") == 38)
    }
  }

  @Test("many outcomes at once take few transactions")
  func grouped() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      _ = try await database.mailbox("first@example.com")
      try await database.sql(
        """
        INSERT INTO mailbox (organization_id, address, address_key, user_id, profile_id, incoming_method, outgoing_method)
        SELECT organization_id, 'x' || i, 'x' || i, user_id, profile_id, 'server-side-sync', 'server-side-sync'
        FROM mailbox, generate_series(1, 2000) AS i
        """)
      try await database.sql(
        """
        INSERT INTO mailbox_schedule (mailbox_id, organization_id, profile_id, kind, job_class, enabled, next_due_at)
        SELECT id, organization_id, profile_id, 'p', 2, true, now() FROM mailbox WHERE address LIKE 'x%'
        """)
      let ids = try await database.sql("SELECT id FROM mailbox WHERE address LIKE 'x%'").map { MailboxID(try $0.int()) }
      let profile = try await database.store.queueProfiles()[0].id
      let leases = ids.map { database.lease($0, .poll, profile) }
      let checked = try await database.store.check(leases)
      // Made before, so that they come as fast as they can.
      let outcomes = leases.compactMap { lease -> SessionOutcome? in
        guard case .run(let assignment) = checked[lease.job] else { return nil }
        return database.outcome(lease, assignment, next: NextDue(at: Date() + 60, reason: "slot"))
      }
      try await withThrowingTaskGroup(of: OutcomeResult.self) { group in
        for outcome in outcomes { group.addTask { try await database.store.commit(outcome) } }
        var written = 0
        for try await result in group where result != .fenced { written += 1 }
        #expect(written == 2_000)
      }
      #expect(try await database.int("SELECT count(*) FROM run") == 2_000)
      #expect(database.store.outcomes.batchCount < 400)
    }
  }

  @Test("repeated alerts update one row; recovery resolves warnings and errors")
  func alerts() async throws {
    try await TestDatabase.with { database in
      let profile = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      func commit(_ alerts: [AlertChange]) async throws {
        try await database.sql("UPDATE mailbox_schedule SET next_due_at = now() WHERE kind = 'p'")
        let (lease, assignment) = try await database.assignment(mailbox, .poll)
        _ = try await database.store.commit(database.outcome(lease, assignment, alerts: alerts))
      }
      let error = AlertDraft(level: .warning, code: "tcp.closed", text: "first", parameters: ["n": "1"])
      try await commit([.raise(error), .raise(AlertDraft(level: .information, code: "info", text: "i"))])
      var second = error
      second.level = .error
      second.text = "second"
      var onProfile = error
      onProfile.onProfile = true
      try await commit([.raise(second), .raise(onProfile)])
      let open = try await database.store.alerts(AlertFilter(), PageRequest(), for: database.principal)
      #expect(open.total == 3)
      let row = try #require(open.items.first { $0.code == "tcp.closed" && $0.mailboxID == mailbox.id })
      #expect(row.count == 2 && row.text == "second" && row.level == .error && row.firstSeen < row.lastSeen)
      #expect(row.mailboxAddress == "a@example.com" && row.runID != nil && row.parameters == ["n": "1"])
      #expect(open.items.contains { $0.profileID == profile.id && $0.mailboxID == nil && $0.count == 1 })

      try await commit([.resolve(codes: ["other"], direction: nil)])
      #expect(try await database.store.alerts(AlertFilter(), PageRequest(), for: database.principal).total == 3)
      try await commit([.resolve(codes: nil, direction: nil)])
      let left = try await database.store.alerts(
        AlertFilter(mailboxID: mailbox.id), PageRequest(), for: database.principal)
      #expect(left.items.map(\.code) == ["info"])
      let all = try await database.store.alerts(
        AlertFilter(mailboxID: mailbox.id, level: .error, includeResolved: true), PageRequest(), for: database.principal
      )
      #expect(all.items.count == 1 && all.items[0].resolvedAt != nil)
      try await commit([.raise(error)])
      #expect(try await database.int("SELECT count(*) FROM alert WHERE code = 'tcp.closed'") == 3)
    }
  }

  @Test("a permanent failure turns a direction off; a passed test turns it on and polls at once")
  func directions() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      let (lease, assignment) = try await database.assignment(mailbox, .poll)
      _ = try await database.store.commit(
        database.outcome(
          lease, assignment, next: NextDue(at: nil, reason: "auth.rejected"), failures: 2,
          directions: [DirectionChange(.incoming, status: .failure, enabled: false, failureCode: .authRejected)]))
      let off = try await database.store.mailbox(mailbox.id, for: database.principal)
      #expect(off.incoming.status == .failure && !off.incoming.enabled && off.incoming.failureCode == "auth.rejected")
      #expect(
        off.incoming.notRunningReason == "disabled" && off.incoming.nextRunAt == nil && off.incoming.failedAt != nil)
      #expect(off.outgoing.notRunningReason == nil && off.outgoing.enabled)
      let refused = try await database.store.requestPoll(of: [mailbox.id], by: database.principal)
      #expect(refused[0].code == "not-running" && refused[0].message?.contains("disabled") == true)
      try await database.pass(mailbox)
      let on = try await database.store.mailbox(mailbox.id, for: database.principal)
      #expect(on.incoming.notRunningReason == nil && on.incoming.failureCode == nil && on.incoming.failedAt == nil)
      #expect(on.incoming.nextRunReason == "enabled" && on.testsServed == 2 && on.lastTestRunID != nil)
      #expect(try await database.assignment(mailbox, .poll).1.failures == 0)
    }
  }
}

extension TestDatabase {
  /// The contents of tables, for "nothing changed".
  func dump(_ tables: String...) async throws -> [String] {
    var lines: [String] = []
    for table in tables { lines += try await sql("SELECT t::text FROM \(table) t ORDER BY 1").map { try $0.text() } }
    return lines
  }
}
