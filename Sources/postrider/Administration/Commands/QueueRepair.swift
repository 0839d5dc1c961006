import ArgumentParser
import FoundationEssentials
import PostriderCore

/// `postrider queue repair`
struct QueueRepair: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "repair", abstract: "Have the queue's invariants checked and what is broken mended.",
    discussion: """
      The leading scheduler does it beside its work; it also does so by itself, slowly, all the time. Exit code 1 when \
      it was not done within --timeout.
      Example: postrider queue repair --wait
      """)

  @Flag(help: "Wait for the end and show what was found.") var wait = false

  @Option(help: ArgumentHelp("Seconds to wait, 1 to 86400.", discussion: "Default: 120.", valueName: "seconds"))
  var timeout = 120

  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    if !(1...86_400).contains(timeout) { throw ValidationError("--timeout must be from 1 to 86400.") }
  }

  func execute(_ session: Session) async throws {
    var repair: RepairRequest = try await session.api.post("/queue/repair", NoBody())
    if wait {
      var progress = Progress(total: 1)
      defer { progress.clear() }
      let clock = ContinuousClock()
      let end = clock.now + .seconds(timeout)
      while repair.finishedAt == nil && clock.now < end {
        progress.wait(for: "waiting for the leading scheduler")
        try await clock.sleep(for: .milliseconds(300))
        repair = try await session.api.get("/queue/repairs/\(repair.id)")
      }
    }
    if session.isJSON { try session.printJSON(repair) } else { try session.print(Self.text(repair)) }
    if wait && repair.finishedAt == nil {
      Terminal.warn("Not done after \(Words.duration(Double(timeout))); it goes on by itself.")
      throw ExitCode(1)
    }
  }

  static func text(_ repair: RepairRequest) -> String {
    guard let report = repair.report else {
      return "Repair \(repair.id) was asked for; the leading scheduler does it."
    }
    let mended = report.mended.filter { $0.value > 0 }.sorted { $0.key < $1.key }
    let words = "Repair \(repair.id): \(Words.count(report.examined, "thing")) looked at, "
    guard !mended.isEmpty else { return words + "nothing was broken." }
    return words + "\(report.total) mended.\n"
      + mended.map { "  \($0.key): \($0.value)" }.joined(separator: "\n")
  }
}
