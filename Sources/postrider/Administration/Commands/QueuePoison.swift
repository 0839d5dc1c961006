import ArgumentParser
import PostriderCore

/// `postrider queue poison …`
struct QueuePoison: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "poison", abstract: "Jobs that were set aside because three workers in a row died over them.",
    subcommands: [QueuePoisonList.self, QueuePoisonRelease.self])
}

/// `postrider queue poison list`
struct QueuePoisonList: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List the jobs that were set aside, oldest first.",
    discussion: """
      Look at the log of the worker at that time before you release a job: it may end the next worker as well.
      Example: postrider queue poison list
      """)

  @OptionGroup var list: ListOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let page: Page<SetAsideJob> = try await Selection.list(
      "/queue/set-aside", [], limit: list.limit, cursor: list.cursor, session.api)
    if session.isJSON { return try session.printJSON(page) }
    var table = Table(
      .text("JOB"), .text("KIND"), .flexible("MAILBOX"), .number("RECLAIMS"), .flexible("LAST WORKER"),
      .flexible("SINCE"))
    for job in page.items {
      table.add(
        job.job, JobID(job.job)?.kind.word ?? "", job.address, "\(job.reclaims)", job.worker,
        Words.timeAndDistance(job.since) ?? "")
    }
    try session.print(table, page, "job that was set aside", plural: "jobs that were set aside")
  }
}

/// `postrider queue poison release`
struct QueuePoisonRelease: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "release", abstract: "Let jobs that were set aside run again.",
    discussion: """
      Exit code 1 when one of them was not set aside.
      Example: postrider queue poison release 4711p
      """)

  @Argument(help: "Jobs as `queue poison list` shows them.") var jobs: [String] = []
  @Flag(help: "All that are set aside when the command begins.") var all = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    if jobs.isEmpty == !all { throw ValidationError("Name jobs, or give --all.") }
    for job in jobs where JobID(job) == nil {
      throw ValidationError("\(Terminal.safe(job)) is not a job; one is written like 4711p.")
    }
  }

  func execute(_ session: Session) async throws {
    var chosen = jobs
    if all {
      let page: Page<SetAsideJob> = try await Selection.list(
        "/queue/set-aside", [], limit: Selection.maximumScanned, session.api)
      chosen = page.items.map(\.job)
    }
    var answer = ReleaseAnswer(released: [])
    for start in stride(from: 0, to: chosen.count, by: ReleaseRequest.maximumJobs) {
      let part = Array(chosen[start..<min(start + ReleaseRequest.maximumJobs, chosen.count)])
      let some: ReleaseAnswer = try await session.api.post("/queue/release", ReleaseRequest(jobs: part))
      answer.released += some.released
    }
    let released = Set(answer.released)
    let others = chosen.filter { !released.contains($0) }
    if session.isJSON {
      try session.printJSON(answer)
    } else {
      try session.print("\(Words.count(released.count, "job")) released.")
    }
    for job in others { Terminal.warn("\(Terminal.safe(job)) was not set aside.") }
    if !others.isEmpty { throw ExitCode(1) }
  }
}
