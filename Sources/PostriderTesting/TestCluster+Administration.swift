import FoundationEssentials
import PostgresStore
import PostriderCore

extension TestCluster {
  /// Makes a profile for servers on this machine.
  public func profile(
    _ name: String = "Profile", incoming: ServerDraft, outgoing: ServerDraft = ServerDraft(host: "127.0.0.1", port: 1),
    sameCredentials: Bool = true, connections: Int = 10, timeoutSeconds: Int = 20, caPEM: String? = nil,
    processEmailFrom: Date? = nil, type: ProfileType = .pop3SMTP
  ) async throws -> ServerProfile {
    var (incoming, outgoing) = (incoming, outgoing)
    incoming.allowClearText()
    outgoing.allowClearText()
    let draft = ProfileDraft(
      name: name, type: type, incoming: incoming, outgoing: outgoing, useSameSettingsForOutgoing: sameCredentials,
      processEmailFrom: processEmailFrom, minimumPollingIntervalMinutes: 1, maximumConcurrentConnections: connections,
      connectionTimeoutSeconds: timeoutSeconds, caCertificatesPEM: caPEM)
    return try await store.createProfile(try ProfileRules(allowsNonTLSMail: true).resolve(draft), by: principal)
  }

  /// Makes and approves mailboxes: `m1@example.org` and so on, or the addresses given.
  public func mailboxes(
    _ addresses: [String], on profile: ServerProfile, password: String? = "secret", outgoing: SyncMethod = .none,
    owner: OwnerKind = .user, deletes: Bool = false
  ) async throws -> [MailboxID] {
    var ids: [MailboxID] = []
    for address in addresses {
      let draft = MailboxDraft(
        address: address, owner: OwnerDraft(kind: owner), profileID: profile.id, outgoingMethod: outgoing,
        password: password.map { Secret($0) }, deleteAfterProcessing: deletes ? true : nil)
      try MailboxRules.check(draft)
      ids.append(try await store.createMailbox(draft, by: principal).id)
    }
    for result in try await store.setApproval(.approved, of: ids, by: principal) where !result.ok {
      throw TestFailure("approval was refused: \(result.message ?? "")")
    }
    return ids
  }

  /// Makes one approved mailbox.
  public func mailbox(
    _ address: String = "m@example.org", on profile: ServerProfile, password: String? = "secret",
    outgoing: SyncMethod = .none
  ) async throws -> MailboxID {
    try await mailboxes([address], on: profile, password: password, outgoing: outgoing)[0]
  }

  /// Enables the incoming direction as a passed test would: the first poll is due.
  public func enable(_ mailboxes: [MailboxID]) async throws {
    let ids = mailboxes.map(\.description).joined(separator: ",")
    try await sql(
      """
      BEGIN;
      UPDATE mailbox SET incoming_status = 'success', incoming_enabled = true WHERE id IN (\(ids));
      SELECT announce_jobs(array(SELECT refresh_may_run(ARRAY[\(ids)]::bigint[])));
      COMMIT;
      """)
  }

  /// Enables one mailbox.
  public func enable(_ mailbox: MailboxID) async throws { try await enable([mailbox]) }

  /// Makes polls due, as if their time had come; nothing is announced.
  public func makeDue(_ mailboxes: [MailboxID]) async throws {
    let ids = mailboxes.map(\.description).joined(separator: ",")
    try await sql("UPDATE mailbox_schedule SET next_due_at = now() WHERE kind = 'p' AND mailbox_id IN (\(ids))")
  }

  /// One mailbox as it is now.
  public func mailbox(_ id: MailboxID) async throws -> Mailbox { try await store.mailbox(id, for: principal) }

  /// A mailbox's runs of a kind with their steps, oldest first.
  public func runs(of mailbox: MailboxID, _ kind: JobKind = .poll) async throws -> [RunRecord] {
    let page = try await store.runs(
      RunFilter(mailboxID: mailbox, kind: kind), PageRequest(limit: 100), for: principal)
    var runs: [RunRecord] = []
    for id in page.items.compactMap(\.id).reversed() { runs.append(try await store.run(id, for: principal)) }
    return runs
  }

  /// Waits until a mailbox has so many runs of a kind; returns all of them, oldest first.
  public func waitForRuns(_ count: Int, of mailbox: MailboxID, _ kind: JobKind = .poll) async throws -> [RunRecord] {
    try await eventually("\(count) runs of \(mailbox)\(kind.rawValue)") {
      let page = try await self.store.runs(
        RunFilter(mailboxID: mailbox, kind: kind), PageRequest(limit: 1), for: self.principal)
      return page.total >= count
    }
    return try await runs(of: mailbox, kind)
  }

  /// Asks for a poll now and waits for it; returns its run.
  public func poll(_ mailbox: MailboxID) async throws -> RunRecord {
    try await served(mailbox, try await store.requestPoll(of: [mailbox], by: principal), .poll)
  }

  /// Asks for test & enable and waits for it; returns its run.
  public func test(_ mailbox: MailboxID) async throws -> RunRecord {
    try await served(mailbox, try await store.requestTest(of: [mailbox], by: principal), .test)
  }

  private func served(_ id: MailboxID, _ answers: [BulkResult], _ kind: JobKind) async throws -> RunRecord {
    for answer in answers where !answer.ok { throw TestFailure("\(kind.word) was refused: \(answer.message ?? "")") }
    func numbers(_ mailbox: Mailbox) -> (requested: Int64, served: Int64, run: RunID?) {
      kind == .test
        ? (mailbox.testsRequested, mailbox.testsServed, mailbox.lastTestRunID)
        : (mailbox.pollsRequested, mailbox.pollsServed, mailbox.lastPollRunID)
    }
    let wanted = numbers(try await mailbox(id)).requested
    let run = try await eventually("the \(kind.word) of \(id)") {
      let now = numbers(try await self.mailbox(id))
      return now.served >= wanted ? now.run : nil
    }
    return try await store.run(run, for: principal)
  }

  /// A mailbox's stored messages with bodies, oldest first.
  public func emails(of mailbox: MailboxID) async throws -> [EmailRecord] {
    let page = try await store.emails(mailbox: mailbox, PageRequest(limit: 500), for: principal)
    var emails: [EmailRecord] = []
    for id in page.items.map(\.id).reversed() { emails.append(try await store.email(id, for: principal)) }
    return emails
  }

  /// The octets of a stored message.
  public func raw(_ email: EmailID) async throws -> [UInt8] {
    var octets: [UInt8] = []
    for try await chunk in try await store.rawEmail(email, for: principal) { octets += chunk }
    return octets
  }

  /// Open alerts of a mailbox, or of its profile's wall where `mailbox` is `nil`.
  public func alerts(of mailbox: MailboxID? = nil) async throws -> [Alert] {
    let page = try await store.alerts(AlertFilter(mailboxID: mailbox), PageRequest(limit: 500), for: principal)
    return mailbox == nil ? page.items.filter { $0.profileID != nil } : page.items
  }
}

extension ServerDraft {
  /// Without TLS a password goes in the clear only where a profile names such a mechanism; the tests' do.
  fileprivate mutating func allowClearText() {
    let takesPassword = credentials == nil || credentials == .mailbox || credentials == .profile
    if tls == TLSMode.none, mechanism == nil, takesPassword { mechanism = .plain }
  }
}
