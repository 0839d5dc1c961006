import Foundation
import PostriderCore
import PrivateServers

/// Sets the sandbox up as an administrator would, through the HTTP API alone, and shows what happens.
struct SandboxDriver {
  let mail: MailSandbox
  let client: APIClient
  let count: Int
  let screen: Screen
  /// Only what happens from here on counts: the data directory may hold an earlier sandbox.
  let startedAt = Date()
  let log = DeliveryLog()

  init(mail: MailSandbox, client: APIClient, mailboxes: Int, screen: Screen) {
    self.mail = mail
    self.client = client
    self.count = mailboxes
    self.screen = screen
  }

  private static let password = "sandbox-password"

  private var addresses: [String] {
    (1...count).map { "user\($0 < 10 ? "0" : "")\($0)@\(mail.domain)" }
  }

  // MARK: The two ways to run

  /// Sets up, then shows what happens until cancelled.
  func run() async throws {
    let mailboxes = try await setUp()
    try await withThrowingTaskGroup(of: Void.self) { group in
      group.addTask { try await trickle() }
      group.addTask {
        while true {
          screen.show(try await status(of: mailboxes))
          try await Task.sleep(for: screen.redraws ? .seconds(1) : .seconds(10))
        }
      }
      try await group.next()
      group.cancelAll()
    }
  }

  /// Sets up and waits until everything was seen to work. Returns the reason when it was not within the limit.
  func check(limit: Duration) async throws -> String? {
    let progress = CheckProgress()
    return try await withThrowingTaskGroup(of: String?.self) { group in
      defer { group.cancelAll() }
      group.addTask {
        try await Task.sleep(for: limit)
        await progress.evidence?.show(on: screen)
        let missing = await progress.evidence?.missing ?? "the sandbox was not set up: not every mailbox was tested"
        return "after \(limit): \(missing)"
      }
      group.addTask {
        let mailboxes = try await setUp()
        return try await watch(mailboxes, progress)
      }
      return try await group.next() ?? nil
    }
  }

  /// Delivers and looks until everything was seen to work.
  private func watch(_ mailboxes: [Mailbox], _ progress: CheckProgress) async throws -> String? {
    var round = 1
    var next = mailboxes.map(\.address)[...]
    while true {
      let evidence = try await SandboxEvidence.gather(
        mailboxes: mailboxes, since: startedAt, mail: mail, log: log, client: client)
      await progress.set(evidence)
      if evidence.missing == nil {
        evidence.show(on: screen)
        return nil
      }
      screen.show(try await status(of: mailboxes))
      // One message a second to one mailbox after the other, until each got one after its first poll.
      for _ in 1...2 {
        if next.isEmpty {
          next = evidence.rows.filter { $0.deliveredAfterFirstPoll < 1 || $0.delivered < 3 }.map(\.address)[...]
          round += 1
        }
        if let address = next.popFirst() { try log.deliver(mail, to: address, subject: "Trickle \(round)") }
        try await Task.sleep(for: .seconds(1))
      }
    }
  }

  // MARK: Setting up

  private func setUp() async throws -> [Mailbox] {
    let addresses = addresses
    let guest = "guest@\(mail.domain)"
    try await mail.addAccounts((addresses + [guest]).map { ($0, Self.password) })
    try log.deliver(mail, to: guest, subject: "Welcome, guest")
    for address in addresses {
      for number in 1...2 { try log.deliver(mail, to: address, subject: "Waiting since before, \(number)") }
    }
    let profile = try await ensureProfile()
    screen.done("Profile", "\(profile.name) (\(profile.id))")
    var mailboxes: [Mailbox] = []
    for address in addresses {
      mailboxes.append(try await ensureMailbox(address, profile.id))
      screen.show(bar("Mailboxes", mailboxes.count, count))
    }
    screen.done("Mailboxes", "\(mailboxes.count) created")
    let pending = mailboxes.filter { $0.approval != .approved }.map(\.id)
    if !pending.isEmpty { try await bulk("approve", pending) }
    screen.done("Approved", "\(mailboxes.count)")
    mailboxes = try await testAndEnable(mailboxes)
    screen.say(
      """
        One account is free for you: \(guest), password \(Self.password)
          postrider mailbox create --address \(guest) --profile \(profile.id)
          postrider mailbox approve \(guest); postrider mailbox test \(guest)
      """)
    return mailboxes
  }

  private func ensureProfile() async throws -> ServerProfile {
    let page: Page<ServerProfile> = try await client.get("/server-profiles", [("limit", "500")])
    let known = page.items.filter { $0.name.hasPrefix("Sandbox") }
    let same = known.first { profile in
      profile.incoming.port == mail.pop3sPort && profile.outgoing.port == mail.submissionPort
        && profile.caCertificatesPEM == mail.caPEM
    }
    if let same { return same }
    let created: CreatedProfile = try await client.post(
      "/server-profiles",
      ProfileRequest(
        name: known.isEmpty ? "Sandbox" : "Sandbox \(known.count + 1)",
        description: "The private mail server of postrider dev --sandbox", type: .pop3SMTP, isDefault: true,
        incoming: ServerRequest(host: mail.host, port: mail.pop3sPort, tls: .implicit),
        outgoing: ServerRequest(host: mail.host, port: mail.submissionPort, tls: .starttls),
        minimumPollingIntervalMinutes: 1, caCertificatesPEM: mail.caPEM))
    return created.profile
  }

  private func ensureMailbox(_ address: String, _ profile: ProfileID) async throws -> Mailbox {
    let page: Page<Mailbox> = try await client.get("/mailboxes", [("address", address)])
    if let known = page.items.first {
      guard known.profileID == profile else {
        throw CheckFailed(
          description: "\(address) belongs to another profile of an earlier sandbox; start afresh: "
            + "postrider dev --reset")
      }
      return known
    }
    return try await client.post(
      "/mailboxes",
      MailboxRequest(address: address, profileID: profile, password: SentSecret(Secret(Self.password))))
  }

  private func bulk(_ verb: String, _ ids: [MailboxID]) async throws {
    let answer: BulkAnswer = try await client.post("/mailboxes/\(verb)", BulkRequest(ids: ids))
    if let refused = answer.results.first(where: { !$0.ok }) {
      throw CheckFailed(description: "\(verb) of mailbox \(refused.id) was refused: \(refused.message ?? "")")
    }
  }

  /// Tests in groups a person could have selected, so that each is interactive, and shows them pass one by one.
  private func testAndEnable(_ mailboxes: [Mailbox]) async throws -> [Mailbox] {
    let began = ContinuousClock.now
    let before = Dictionary(mailboxes.map { ($0.id, $0.testsRequested) }, uniquingKeysWith: { $1 })
    var rest = mailboxes.map(\.id)[...]
    while !rest.isEmpty {
      try await bulk("test", Array(rest.prefix(20)))
      rest = rest.dropFirst(20)
    }
    var firstReported = false
    while true {
      let now = try await current(mailboxes)
      let tested = now.filter { $0.testsServed > before[$0.id] ?? 0 }
      if let first = tested.first(where: { $0.incoming.enabled && $0.outgoing.enabled }), !firstReported {
        firstReported = true
        let seconds = (ContinuousClock.now - began) / .seconds(1)
        screen.done("First mailbox", "\(first.address) tested and enabled after \(String(format: "%.1f", seconds)) s")
      }
      screen.show(bar("Test & enable", tested.count, mailboxes.count))
      if tested.count == mailboxes.count {
        let enabled = now.count { $0.incoming.enabled && $0.outgoing.enabled }
        let seconds = (ContinuousClock.now - began) / .seconds(1)
        screen.done("Test & enable", "\(enabled) of \(now.count) enabled in \(String(format: "%.1f", seconds)) s")
        return now
      }
      try await Task.sleep(for: .milliseconds(250))
    }
  }

  /// The mailboxes of the sandbox as they are now.
  private func current(_ mailboxes: [Mailbox]) async throws -> [Mailbox] {
    let wanted = Set(mailboxes.map(\.id))
    let page: Page<Mailbox> = try await client.get("/mailboxes", [("limit", "500")])
    return page.items.filter { wanted.contains($0.id) }
  }

  // MARK: New mail and the picture of it

  /// Delivers a message now and then, to one mailbox after the other: lively at first, then slower, so that a sandbox
  /// left alone does not fill the disk.
  private func trickle() async throws {
    for round in 1... {
      for address in addresses {
        try log.deliver(mail, to: address, subject: "Trickle \(round)")
        try await Task.sleep(for: .seconds(min(round, 60)))
      }
    }
  }

  private func status(of mailboxes: [Mailbox]) async throws -> String {
    let now = try await current(mailboxes)
    let numbers: QueueAnswer = try await client.get("/queue/stats")
    let runs: Page<RunRecord> = try await client.get("/runs", [("kind", "poll"), ("limit", "100")])
    let enabled = now.count { $0.incoming.enabled && $0.outgoing.enabled }
    let stored = now.reduce(0) { $0 + $1.emailCount }
    let recent = Date(timeIntervalSinceNow: -90)
    let workers = Set(runs.items.filter { $0.finishedAt > recent }.map(\.worker)).count
    let next = now.compactMap(\.incoming.nextRunAt).min().map { max(0, Int($0.timeIntervalSinceNow.rounded())) }
    return
      "mailboxes \(enabled)/\(now.count) enabled · messages \(stored) · polls \(runs.total) · "
      + "queue \(numbers.queue.totalReady) ready, \(numbers.queue.inFlight) in flight · workers \(workers) · "
      + "next poll \(next.map { "in \($0) s" } ?? "–")"
  }

  private func bar(_ what: String, _ done: Int, _ all: Int) -> String {
    let width = 24
    let filled = all == 0 ? width : done * width / all
    return "  \(what) [" + String(repeating: "█", count: filled) + String(repeating: "·", count: width - filled)
      + "] \(done)/\(all)"
  }
}

/// How far a check came, for the words at its deadline.
private actor CheckProgress {
  private(set) var evidence: SandboxEvidence?

  func set(_ evidence: SandboxEvidence) { self.evidence = evidence }
}
