import ArgumentParser

/// `postrider bench bulk`
struct BenchBulkCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bulk",
    abstract: "A batch that approves many mailboxes, beside one bare UPDATE and with polls; an import of as many.",
    discussion: """
      Examples:
        postrider bench bulk
        postrider bench bulk --mailboxes 20000 --json
      """)

  @OptionGroup var options: BenchOptions

  @Option(name: .long, help: ArgumentHelp("Mailboxes, 1,000…1,000,000.", valueName: "n"))
  var mailboxes = 100_000

  func validate() throws {
    guard (1_000...1_000_000).contains(mailboxes) else {
      throw ValidationError("--mailboxes must be from 1000 to 1000000")
    }
  }

  func run() async throws {
    try await Bench.run("bulk", options) { servers, report in
      try await BulkBench(command: self, servers: servers).run(&report)
    }
  }
}
