import ArgumentParser
import FoundationEssentials
import PostriderCore

/// `postrider queue stats`
struct QueueStats: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "stats", abstract: "Show how much waits, runs and is late, how fast it goes and who works.",
    discussion: """
      With --watch and --json each refresh is one line of JSON.
      Example: postrider queue stats --watch
      """)

  @Flag(help: "Refresh every 2 seconds until Ctrl-C.") var watch = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    var isFirst = true
    repeat {
      var answer: QueueAnswer = try await session.api.get("/queue/stats")
      if !watch && answer.jobsPerSecond == nil {
        // The API keeps a reading for two seconds; a rate needs two.
        try await ContinuousClock().sleep(for: .milliseconds(2_200))
        answer = try await session.api.get("/queue/stats")
      }
      if session.isJSON {
        try Terminal.print(try JSONCoding.text(answer, pretty: !watch))
      } else if watch && Terminal.isInteractive {
        try Terminal.redraw(Self.text(answer), isFirst: isFirst)
      } else {
        if !isFirst { try session.print("") }
        try session.print(Self.text(answer))
      }
      isFirst = false
      if watch { try await ContinuousClock().sleep(for: .seconds(2)) }
    } while watch
  }

  static func text(_ answer: QueueAnswer) -> String {
    let queue = answer.queue
    let now = Words.date(queue.serverMilliseconds)
    func age(_ milliseconds: Int64?) -> String {
      milliseconds.map { Words.duration(max(0, now.timeIntervalSince(Words.date($0)))) } ?? "-"
    }
    var table = Table(.text("CLASS"), .number("WAITING"), .number("OLDEST DUE FOR"))
    let known = JobClass.allCases.map(\.label)
    for label in known + queue.ready.keys.filter({ !known.contains($0) }).sorted() {
      table.add(label, "\(queue.ready[label] ?? 0)", age(queue.oldestDueMilliseconds[label]))
    }
    table.add("all", "\(queue.totalReady)", age(queue.oldestDueMilliseconds.values.min()))
    var details = Details()
    details.add("in flight", Self.inFlight(queue))
    details.add("blocked", Words.blocked(queue.blocked) ?? "none")
    details.add("rate", Self.rate(answer))
    let poison = answer.setAside ?? queue.poisoned
    details.add("poison", poison == 0 ? "none" : "\(Words.count(poison, "job")) set aside: postrider queue poison list")
    details.add("reclaimed", "\(queue.reclaimed) leases taken back from workers that died")
    details.add("scheduled", "\(answer.schedule.scheduled)")
    let late = answer.schedule.overdue > 0 ? ", the oldest for \(age(answer.schedule.oldestDueMilliseconds))" : ""
    details.add("overdue", "\(answer.schedule.overdue)\(late)")
    details.add("leader", answer.schedule.leader ?? "none: no scheduler leads, nothing new is queued")
    details.add("queue epoch", "\(queue.epoch)")
    details.add("queue clock", Words.time(now))
    return table.rendered() + "\n\n" + details.rendered()
  }

  /// `12 of 128 slots of 2 workers`
  static func inFlight(_ queue: QueueStatistics) -> String {
    guard queue.workers > 0 else { return "\(queue.inFlight); no worker is running" }
    let slots = "\(queue.inFlight) of \(queue.workerSlots) slots of \(Words.count(queue.workers, "worker"))"
    return queue.inFlight >= queue.workerSlots ? "\(slots): all are busy" : slots
  }

  /// `103.2 jobs/s, 0.8 s each`
  static func rate(_ answer: QueueAnswer) -> String {
    guard let rate = answer.jobsPerSecond else { return "not known yet" }
    let each = answer.meanSessionSeconds.map { ", \(Words.duration($0)) each" } ?? ""
    return "\(Words.tenths(rate)) jobs/s\(rate > 0 ? each : "")"
  }
}
