import ArgumentParser
import FoundationEssentials
import PostriderCore

/// `postrider queue inspect`
struct QueueInspect: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect",
    abstract: "Show where the jobs of mailboxes are, what holds them back and when they run next.",
    discussion: """
      With --json: the jobs, and the mailboxes with the times of their next runs and the reasons.
      Example: postrider queue inspect support@example.com
      """)

  @Argument(help: "Ids, addresses or owners' names.") var mailboxes: [String]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  /// What the command answers.
  struct Answer: Codable, Sendable {
    var jobs: [JobLocation]
    var mailboxes: [Mailbox]
  }

  func execute(_ session: Session) async throws {
    var answer = Answer(jobs: [], mailboxes: try await Selection.mailboxes(mailboxes, session.api))
    var blocks: [String] = []
    for mailbox in answer.mailboxes {
      let found: InspectAnswer = try await session.api.get("/queue/inspect", [("mailbox", "\(mailbox.id)")])
      answer.jobs += found.jobs
      blocks.append(Self.text(mailbox, found.jobs))
    }
    if session.isJSON { return try session.printJSON(answer) }
    try session.print(blocks.joined(separator: "\n\n"))
  }

  static func text(_ mailbox: Mailbox, _ jobs: [JobLocation], now: Date = Date()) -> String {
    var details = Details()
    details.heading(
      Terminal.safe("\(mailbox.address) (mailbox \(mailbox.id), profile \(mailbox.profileName ?? "none"))"))
    if let since = mailbox.pausedAt { details.add("  paused", "since \(Words.time(since))") }
    for job in jobs {
      let id = JobID(job.job)
      let kind = id?.kind
      let lane = id.map { $0.lane > 0 ? ", lane \($0.lane)" : "" } ?? ""
      details.add("  \(kind?.word ?? job.job)\(lane)", place(job, now))
      if id?.lane == 0, let next = next(kind, mailbox, now) { details.add("    next run", next) }
    }
    return details.rendered()
  }

  /// Where a job is, in a sentence.
  static func place(_ job: JobLocation, _ now: Date) -> String {
    func distance(_ milliseconds: Int64) -> String {
      Words.duration(abs(Words.date(milliseconds).timeIntervalSince(now)))
    }
    switch job.state {
    case "absent": return "not in the queue"
    case "leased":
      var text = "held by \(job.worker ?? "a worker")"
      if let since = job.leasedSinceMilliseconds { text += " for \(distance(since))" }
      if let fence = job.fence { text += ", fence \(fence)" }
      if let end = job.leaseEndsMilliseconds { text += ", its lease ends in \(distance(end)) unless renewed" }
      return text
    case "poisoned": return "set aside: postrider queue poison release \(job.job)"
    case "ready", "parked":
      var text = "waits"
      if let jobClass = job.jobClass { text += " as \(jobClass)" }
      if let due = job.dueMilliseconds { text += ", due for \(distance(due))" }
      switch job.blockedBy {
      case nil, "turn": text += ", for its turn"
      case "no-worker": text += ", no worker is running"
      case "workers-busy": text += ", every worker is busy"
      case "busy-mailbox": text += ", another session of the mailbox is running"
      case let reason?: text += ", blocked by \(reason)"
      }
      if let until = job.blockedUntilMilliseconds {
        text += " until \(Words.timeAndDistance(Words.date(until), now: now) ?? "")"
      }
      return text
    default: return job.state
    }
  }

  /// When a kind runs next and why, by the schedule; `nil` where there is nothing to say.
  private static func next(_ kind: JobKind?, _ mailbox: Mailbox, _ now: Date) -> String? {
    let state: DirectionState
    switch kind {
    case .poll: state = mailbox.incoming
    case .send: state = mailbox.outgoing
    case .test:
      return mailbox.testsRequested > mailbox.testsServed ? "as soon as a worker is free, requested" : nil
    case nil: return nil
    }
    if let next = Words.timeAndDistance(state.nextRunAt, now: now) {
      return next + (Words.reason(state).map { ", \($0)" } ?? "")
    }
    return state.notRunningReason.map { "none: \($0)" }
  }
}
