import FoundationEssentials
import PostriderCore

/// Why a job that somebody waits for does not start, as far as the API knows.
struct WaitReason: Hashable, Codable, Sendable {
  /// Stable, for programs: `no-worker`, `workers-busy`, `limit`, `paused`, `breaker`, `no-scheduler`, …
  var code: String
  /// The same in words, with numbers and times.
  var message: String
}

/// Finds the reason, by the queue first and then by what the reason itself points to.
struct WaitReasonFinder {
  let kind: RequestWaiter.Kind
  let api: APIClient

  private var word: String { kind.rawValue }

  /// The reason for the first of these mailboxes that is not being worked on; `nil` when one of them is.
  func reason(_ mailboxes: [Mailbox], now: Date = Date()) async throws -> WaitReason? {
    do {
      return try await look(mailboxes, now)
    } catch ClientError.refused(let problem, status: 503) {
      return WaitReason(
        code: "queue-unavailable",
        message: "the queue cannot be read: \(safe(problem.detail ?? "what the API needs does not answer"))")
    }
  }

  private func look(_ mailboxes: [Mailbox], _ now: Date) async throws -> WaitReason? {
    var found: (mailbox: Mailbox, job: JobLocation?)?
    for mailbox in mailboxes {
      let answer: InspectAnswer = try await api.get("/queue/inspect", [("mailbox", "\(mailbox.id)")])
      let job = answer.jobs.first { JobID($0.job)?.kind.word == word }
      if job?.state == "leased" { return nil }
      // A job that waits in the queue says more than one that is not there yet.
      if found == nil || found?.job?.state == "absent" && job?.state != "absent" { found = (mailbox, job) }
    }
    guard let found else { return nil }
    guard let job = found.job, job.state != "absent" else { return try await notQueued(found.mailbox) }
    return try await queued(job, found.mailbox, now)
  }

  // MARK: Not in the queue

  private func notQueued(_ mailbox: Mailbox) async throws -> WaitReason {
    if let pause = try await pause(of: mailbox) { return pause }
    // A test needs less than a poll: these keep it from running as well.
    let stopsTests = ["mailbox-inactive", "owner-inactive", "profile-inactive", "no-profile"]
    if let why = mailbox.incoming.notRunningReason, kind == .poll || stopsTests.contains(why) {
      return WaitReason(code: why, message: "\(safe(mailbox.address)) is not running: \(safe(why))")
    }
    let stats: QueueAnswer = try await api.get("/queue/stats")
    if stats.schedule.leader == nil {
      return WaitReason(
        code: "no-scheduler",
        message: "no scheduler is running, so nothing is put into the queue: start `postrider scheduler`")
    }
    return WaitReason(code: "not-queued", message: "the \(word) is not in the queue yet")
  }

  private func pause(of mailbox: Mailbox) async throws -> WaitReason? {
    let pauses: Page<Pause> = try await api.get("/queue/pauses", [("limit", "500")])
    if let pause = pauses.items.first(where: { $0.scope == "organization" }) {
      return WaitReason(
        code: "paused",
        message:
          "everything is paused since \(Words.time(pause.since)) by \(safe(pause.by)): postrider queue resume --all")
    }
    if let pause = pauses.items.first(where: { $0.scope == "mailbox" && $0.id == mailbox.id.value }) {
      return WaitReason(
        code: "paused",
        message: "the mailbox is paused since \(Words.time(pause.since)) by \(safe(pause.by)): "
          + "postrider queue resume --mailbox \(mailbox.id)")
    }
    let profile = mailbox.profileID?.value
    guard let pause = pauses.items.first(where: { $0.scope == "profile" && $0.id == profile && profile != nil })
    else { return nil }
    return WaitReason(
      code: "paused",
      message: "the profile \(safe(pause.name)) is paused since \(Words.time(pause.since)) by \(safe(pause.by)): "
        + "postrider queue resume --profile \(profile ?? 0)")
  }

  // MARK: In the queue

  private func queued(_ job: JobLocation, _ mailbox: Mailbox, _ now: Date) async throws -> WaitReason {
    if job.state == "poisoned" {
      return WaitReason(
        code: "poisoned",
        message: "the \(word) was set aside, because three workers in a row died over it: "
          + "postrider queue poison release \(safe(job.job))")
    }
    let profile = mailbox.profileName.map { "the profile \(safe($0))" } ?? "its profile"
    let until = job.blockedUntilMilliseconds.flatMap { Words.timeAndDistance(Words.date($0), now: now) }
    let end = until.map { " until \($0)" } ?? ""
    let message: String
    switch job.blockedBy ?? "turn" {
    case "no-worker": message = "no worker is running: start `postrider worker`"
    case "workers-busy": message = try await busy()
    case "paused":
      if let reason = try await pause(of: mailbox) { return reason }
      message = "\(profile) is paused"
    case "limit": message = try await limit(mailbox, profile)
    case "busy-mailbox": message = "another session of \(safe(mailbox.address)) is running"
    case "breaker":
      message = "the mail server of \(profile) failed too often, so nobody connects to it (breaker open\(end))"
    case "halted": message = "\(profile) is halted\(end)"
    case "login-budget": message = "\(profile) has used up its logins\(end), so that no account is locked out"
    case "turn": message = "the \(word) waits for its turn; workers have free slots"
    case let other: message = "the \(word) is held back by \(safe(other))\(end)"
    }
    return WaitReason(code: job.blockedBy ?? "turn", message: message)
  }

  private func busy() async throws -> String {
    let stats: QueueAnswer = try await api.get("/queue/stats")
    let workers = Words.count(stats.queue.workers, "worker")
    return "all \(stats.queue.workerSlots) slots of \(workers) are busy; the \(word) is next in line"
  }

  private func limit(_ mailbox: Mailbox, _ name: String) async throws -> String {
    // Not everybody may read profiles; the sentence is good without the number.
    let profile: ServerProfile? =
      if let id = mailbox.profileID { try? await api.get("/server-profiles/\(id)") } else { nil }
    let number = profile.map { " of \(Words.count($0.maximumConcurrentConnections, "connection"))" } ?? ""
    return profile?.isActive == false ? "\(name) is inactive" : "\(name) is at its limit\(number)"
  }

  private func safe(_ text: String) -> String { Terminal.safe(text) }
}
