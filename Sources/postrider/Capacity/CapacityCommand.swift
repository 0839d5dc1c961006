import ArgumentParser
import FoundationEssentials
import PostriderCore

/// `postrider capacity`
struct CapacityCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "capacity",
    abstract: "Computes workers, connections, Redis memory and PostgreSQL writes for a number of mailboxes.",
    discussion: """
      Prints each number with its formula. The settings of this environment count (worker.sessions, database.poolSize); \
      the costs are those measured for this release, or your machine's own:

        postrider bench pipeline --json >pipeline.json
        postrider bench schedule --json >schedule.json
        postrider capacity --mailboxes 100000 --interval 5m --figures pipeline.json schedule.json

      Example: postrider capacity --mailboxes 20000 --interval 10m --session-seconds 1.5 --profile-mailboxes 4000
      """)

  @Option(help: ArgumentHelp("Mailboxes that are polled, 1 to 100,000,000.", valueName: "n")) var mailboxes: Int
  @Option(help: ArgumentHelp("From poll to poll: 90s, 5m, 1h.", valueName: "time")) var interval = "5m"
  @Option(
    help: ArgumentHelp(
      "Seconds of a session (meanSessionSeconds of GET /api/v1/scale, once it runs).", valueName: "s"))
  var sessionSeconds = ScaleRule.assumedSessionSeconds
  @Option(help: ArgumentHelp("New messages of a mailbox in a day.", valueName: "n")) var messages = 20.0
  @Option(help: ArgumentHelp("Messages that a mailbox sends in a day.", valueName: "n")) var sent = 5.0
  @Option(help: ArgumentHelp("Mean size of a message in KiB.", valueName: "KiB")) var messageKib = 75.0
  @Option(help: ArgumentHelp("Mailboxes of the largest profile, to look at its limit.", valueName: "n"))
  var profileMailboxes: Int?
  @Option(help: ArgumentHelp("That profile's maximum of concurrent connections.", valueName: "n"))
  var profileConnections = 10
  @Option(help: ArgumentHelp("Cores that a worker has.", valueName: "n")) var workerCores = 1.0
  @Option(help: ArgumentHelp("Scheduler processes.", valueName: "n")) var schedulers = 2
  @Option(help: ArgumentHelp("API processes.", valueName: "n")) var apis = 2
  @Option(help: ArgumentHelp("Days for which runs are kept.", valueName: "n")) var historyDays = 30
  @Option(
    parsing: .upToNextOption,
    help: ArgumentHelp(
      "JSON objects of `postrider bench … --json`, whose figures replace the costs.", valueName: "file"),
    completion: .file())
  var figures: [String] = []
  @OptionGroup var role: RoleOptions
  @Flag(help: "Print one JSON object.") var json = false

  func validate() throws {
    guard (1...100_000_000).contains(mailboxes) else {
      throw ValidationError("--mailboxes must be from 1 to 100000000.")
    }
    guard Self.seconds(interval) != nil else {
      throw ValidationError("--interval must be a time such as 90s, 5m or 1h, from 1s to 24h.")
    }
    for (name, value) in [
      ("session-seconds", sessionSeconds), ("worker-cores", workerCores), ("message-kib", messageKib),
    ] where !(value > 0 && value < 1e9) {
      throw ValidationError("--\(name) must be above 0.")
    }
    for (name, value) in [("messages", messages), ("sent", sent)] where !(value >= 0 && value < 1e9) {
      throw ValidationError("--\(name) must not be below 0.")
    }
    for (name, value) in [
      ("profile-mailboxes", profileMailboxes ?? 1), ("profile-connections", profileConnections),
      ("schedulers", schedulers), ("apis", apis), ("history-days", historyDays),
    ] where !(1...100_000_000).contains(value) {
      throw ValidationError("--\(name) must be 1 or more.")
    }
  }

  /// Seconds of `90s`, `5m`, `1h`, or of a number alone, which is one of minutes as everywhere else.
  static func seconds(_ text: String) -> Double? {
    let units: [Character: Double] = ["s": 1, "m": 60, "h": 3_600]
    let unit = text.last.flatMap { units[$0] }
    guard let number = Double(unit == nil ? text[...] : text.dropLast()), number > 0 else { return nil }
    let seconds = number * (unit ?? 60)
    return (1...86_400).contains(seconds) ? seconds : nil
  }

  func run() async throws {
    try await ClientError.told {
      let settings = try await role.settings(required: [])
      var costs = CapacityCosts()
      for file in figures { try costs.take(file) }
      let plan = CapacityPlan(
        load: CapacityLoad(
          mailboxes: mailboxes, intervalSeconds: Self.seconds(interval) ?? 300, sessionSeconds: sessionSeconds,
          messagesPerDay: messages, sentPerDay: sent, messageKiB: messageKib, mailboxesPerProfile: profileMailboxes,
          connectionsPerProfile: profileConnections),
        shape: CapacityShape(
          workerSessions: settings.number(.workerSessions), workerCores: workerCores, schedulers: schedulers,
          apis: apis, poolSize: settings.number(.databasePool), historyDays: historyDays),
        costs: costs)
      try Terminal.print(json ? try JSONCoding.text(plan) : plan.table)
    }
  }
}
