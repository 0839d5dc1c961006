import ArgumentParser
import FoundationEssentials
import PostriderCore

/// `postrider queue …`
struct QueueCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "queue", abstract: "The job queue.", subcommands: [QueueStats.self, QueueInspect.self])
}

/// `postrider queue stats`
struct QueueStats: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "stats", abstract: "Show how much waits, runs and is late, and who leads the schedulers.",
    discussion: """
      With --watch and --json each refresh is one line of JSON.
      Example: postrider queue stats --watch
      """)

  @Flag(help: "Refresh every 2 seconds until Ctrl-C.") var watch = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    var isFirst = true
    repeat {
      let answer: QueueAnswer = try await session.api.get("/queue/stats")
      if session.isJSON {
        try Terminal.print(try JSONCoding.text(answer, pretty: !watch))
      } else {
        if watch && Terminal.isInteractive { try Terminal.write(Array("\u{1B}[H\u{1B}[2J".utf8)) }
        if watch && !isFirst && !Terminal.isInteractive { try session.print("") }
        try session.print(Self.text(answer))
      }
      isFirst = false
      if watch { try await ContinuousClock().sleep(for: .seconds(2)) }
    } while watch
  }

  static func text(_ answer: QueueAnswer) -> String {
    let queue = answer.queue
    let now = Date(timeIntervalSince1970: Double(queue.serverMilliseconds) / 1_000)
    func age(_ milliseconds: Int64?) -> String {
      guard let milliseconds else { return "-" }
      return Words.duration(max(0, now.timeIntervalSince1970 - Double(milliseconds) / 1_000))
    }
    var table = Table(.text("CLASS"), .number("WAITING"), .number("OLDEST DUE FOR"))
    let known = JobClass.allCases.map(\.label)
    for label in known + queue.ready.keys.filter({ !known.contains($0) }).sorted() {
      table.add(label, "\(queue.ready[label] ?? 0)", age(queue.oldestDueMilliseconds[label]))
    }
    table.add("all", "\(queue.totalReady)", age(queue.oldestDueMilliseconds.values.min()))
    let blocked = queue.blocked.filter { $0.value > 0 }.sorted { $0.key < $1.key }.map { "\($0.value) by \($0.key)" }
    var details = Details()
    details.add("in flight", "\(queue.inFlight)")
    details.add("blocked", blocked.isEmpty ? "none" : blocked.joined(separator: ", "))
    details.add("reclaimed", "\(queue.reclaimed) leases taken back from workers that died")
    details.add("scheduled", "\(answer.schedule.scheduled)")
    let late = answer.schedule.overdue > 0 ? ", the oldest for \(age(answer.schedule.oldestDueMilliseconds))" : ""
    details.add("overdue", "\(answer.schedule.overdue)\(late)")
    details.add("leader", answer.schedule.leader ?? "none: no scheduler leads, nothing new is queued")
    details.add("queue epoch", "\(queue.epoch)")
    details.add("queue clock", Words.time(now))
    return table.rendered() + "\n\n" + details.rendered()
  }
}

/// `postrider queue inspect`
struct QueueInspect: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect", abstract: "Show where the jobs of mailboxes are and what holds them back.",
    discussion: "Example: postrider queue inspect support@example.com")

  @Argument(help: "Ids, addresses or owners' names.") var mailboxes: [String]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    var jobs: [JobLocation] = []
    var table = Table(
      .flexible("MAILBOX"), .text("KIND"), .text("STATE"), .text("CLASS"), .text("DUE"), .text("BLOCKED BY"),
      .flexible("WORKER"), .text("LEASE ENDS"))
    for mailbox in try await Selection.mailboxes(mailboxes, session.api) {
      let answer: InspectAnswer = try await session.api.get("/queue/inspect", [("mailbox", "\(mailbox.id)")])
      jobs += answer.jobs
      for job in answer.jobs {
        table.add(
          mailbox.address, JobID(job.job)?.kind.word ?? job.job, job.state, job.jobClass ?? "",
          time(job.dueMilliseconds),
          job.blockedBy ?? "", job.worker ?? "", time(job.leaseEndsMilliseconds))
      }
    }
    if session.isJSON { return try session.printJSON(InspectAnswer(jobs: jobs)) }
    try session.print(table)
  }

  private func time(_ milliseconds: Int64?) -> String {
    milliseconds.map { Words.time(Date(timeIntervalSince1970: Double($0) / 1_000)) } ?? ""
  }
}
