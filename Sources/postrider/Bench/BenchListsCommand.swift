import ArgumentParser

/// `postrider bench lists`
struct BenchListsCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "lists",
    abstract: "Pages of the lists of mailboxes, runs and alerts at their ends and in their middle, with totals.",
    discussion: """
      One organization holds nine tenths of everything. PostgreSQL is restarted after filling and before measuring, unless
      it is given by --database-url. Every view and every filter is asked for its first, a middle and its last page. For
      the goal take --mailboxes 1000000 --runs 10000000, which needs about 6 GB of disk and some minutes.

      Examples:
        postrider bench lists
        postrider bench lists --mailboxes 1000000 --runs 10000000 --plans
      """)

  @OptionGroup var options: BenchOptions

  @Option(name: .long, help: ArgumentHelp("Mailboxes, 1,000…5,000,000.", valueName: "n"))
  var mailboxes = 100_000

  @Option(name: .long, help: ArgumentHelp("Runs of the last 30 days, 10,000…50,000,000.", valueName: "n"))
  var runs = 1_000_000

  @Option(name: .long, help: ArgumentHelp("How often each page is asked for, 5…1,000.", valueName: "n"))
  var samples = 100

  @Flag(name: .long, help: "Print the plans of the slowest page as PostgreSQL executed them.")
  var plans = false

  func validate() throws {
    guard (1_000...5_000_000).contains(mailboxes) else {
      throw ValidationError("--mailboxes must be from 1000 to 5000000")
    }
    guard (10_000...50_000_000).contains(runs) else { throw ValidationError("--runs must be from 10000 to 50000000") }
    guard (5...1_000).contains(samples) else { throw ValidationError("--samples must be from 5 to 1000") }
  }

  func run() async throws {
    try await Bench.run("lists", options) { servers, report in
      try await ListsBench(command: self, servers: servers).run(&report)
    }
  }
}
