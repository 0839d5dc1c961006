import ArgumentParser
import Foundation

/// `postrider bench`
struct BenchCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench",
    abstract:
      "Measures queue, pipeline, schedule, polls, fetches, sending, lists and bulk changes on this machine.",
    discussion: """
      Each benchmark starts a PostgreSQL and a Redis of its own, measures what the bare servers reach in the same run,
      and leaves nothing behind. Use a release build: swift build -c release

      Examples:
        postrider bench queue                    claims and completions under limits, start latency, fairness
        postrider bench pipeline --json          whole jobs with their outcome in PostgreSQL, as one JSON object
        postrider bench schedule --mailboxes 100000
        postrider bench poll                     empty polls: CPU and memory of the client, plain and over TLS
        postrider bench fetch                    mail from Dovecot, parsed and stored
        postrider bench send                     mail to a sink, beside smtp-source
        postrider bench lists                    pages of mailboxes, runs and alerts with totals
        postrider bench bulk                     a batch over 100,000 mailboxes while they are polled
      """,
    subcommands: [
      BenchQueueCommand.self, BenchPipelineCommand.self, BenchScheduleCommand.self, BenchPollCommand.self,
      BenchFetchCommand.self, BenchSendCommand.self, BenchListsCommand.self, BenchBulkCommand.self,
      CheapPOP3Server.self,
    ])
}

/// What every benchmark can be told.
struct BenchOptions: ParsableArguments {
  @Flag(name: .long, help: "Print the JSON object alone.")
  var json = false

  @Option(
    name: .long,
    help: ArgumentHelp("Seconds of each measured part, 1…600; longer is steadier.", valueName: "s"))
  var seconds = 10

  @Option(
    name: .long,
    help: ArgumentHelp("Measure this Redis in place of a private one; its database must be empty.", valueName: "url"))
  var redisURL: String?

  @Option(
    name: .long,
    help: ArgumentHelp(
      "Measure this PostgreSQL in place of a private one; the role must be a superuser, the database empty.",
      valueName: "url"))
  var databaseURL: String?

  func validate() throws {
    guard (1...600).contains(seconds) else { throw ValidationError("--seconds must be from 1 to 600") }
  }
}

/// `postrider bench queue`
struct BenchQueueCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "queue",
    abstract: "Claim and complete cycles with limits, fairness and fences on; start latency; idle calls.",
    discussion: """
      Load: 1,000 profiles with a limit of 10 connections share the mailboxes. One fifth of the profiles is full all the
      time, all classes and kinds are there, limits count on the profile or on the mailbox, a tenth of the jobs is held
      and renewed every 5 s.

      Examples:
        postrider bench queue
        postrider bench queue --json --seconds 5 --mailboxes 20000
      """)

  @OptionGroup var options: BenchOptions

  @Option(name: .long, help: ArgumentHelp("Mailboxes of the load, 1,000…1,000,000.", valueName: "n"))
  var mailboxes = 100_000

  @Option(name: .long, help: ArgumentHelp("Jobs asked for in one claim, 1…256.", valueName: "n"))
  var batch = 32

  func validate() throws {
    guard (1_000...1_000_000).contains(mailboxes) else {
      throw ValidationError("--mailboxes must be from 1000 to 1000000")
    }
    guard (1...256).contains(batch) else { throw ValidationError("--batch must be from 1 to 256") }
  }

  func run() async throws {
    try await Bench.run("queue", options) { servers, report in
      try await QueueBench(command: self, servers: servers).run(&report)
    }
  }
}

/// `postrider bench pipeline`
struct BenchPipelineCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pipeline",
    abstract: "Whole jobs: enqueued, claimed, a session that does nothing, the outcome committed, completed.",
    discussion: """
      Examples:
        postrider bench pipeline
        postrider bench pipeline --json --seconds 30 --workers 4
      """)

  @OptionGroup var options: BenchOptions

  @Option(name: .long, help: ArgumentHelp("Mailboxes, 1,000…1,000,000.", valueName: "n"))
  var mailboxes = 40_000

  @Option(name: .long, help: ArgumentHelp("Workers side by side in this process, 1…16.", valueName: "n"))
  var workers = 2

  @Option(name: .long, help: ArgumentHelp("Sessions at once of each worker, 1…10,000.", valueName: "n"))
  var sessions = 1_024

  func validate() throws {
    guard (1_000...1_000_000).contains(mailboxes) else {
      throw ValidationError("--mailboxes must be from 1000 to 1000000")
    }
    guard (1...16).contains(workers) else { throw ValidationError("--workers must be from 1 to 16") }
    guard (1...10_000).contains(sessions) else { throw ValidationError("--sessions must be from 1 to 10000") }
  }

  func run() async throws {
    try await Bench.run("pipeline", options) { servers, report in
      try await PipelineBench(command: self, servers: servers).run(&report)
    }
  }
}

/// `postrider bench schedule`
struct BenchScheduleCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "schedule",
    abstract: "A scheduler process with many mailboxes: its CPU, evenness, Redis memory, refill after a loss.",
    discussion: """
      Examples:
        postrider bench schedule                        1,000,000 mailboxes polled every 5 minutes
        postrider bench schedule --mailboxes 50000 --interval 15 --json
      """)

  @OptionGroup var options: BenchOptions

  @Option(name: .long, help: ArgumentHelp("Mailboxes, 1,000…5,000,000.", valueName: "n"))
  var mailboxes = 1_000_000

  @Option(name: .long, help: ArgumentHelp("Seconds from poll to poll of a mailbox, 5…86,400.", valueName: "s"))
  var interval = 300

  func validate() throws {
    guard (1_000...5_000_000).contains(mailboxes) else {
      throw ValidationError("--mailboxes must be from 1000 to 5000000")
    }
    guard (5...86_400).contains(interval) else { throw ValidationError("--interval must be from 5 to 86400") }
  }

  func run() async throws {
    try await Bench.run("schedule", options) { servers, report in
      try await ScheduleBench(command: self, servers: servers).run(&report)
    }
  }
}

/// `postrider bench poll`
struct BenchPollCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "poll",
    abstract: "Empty polls: what they cost the client in CPU and memory, plain and over TLS.",
    discussion: """
      Against a server of its own that costs next to nothing, in another process, and against Dovecot; beside fetchmail
      where it is installed.

      Examples:
        postrider bench poll
        postrider bench poll --json --seconds 3 --held 1000
      """)

  @OptionGroup var options: BenchOptions

  @Option(name: .long, help: ArgumentHelp("Polls at once, 1…1,000.", valueName: "n"))
  var connections = 50

  @Option(name: .long, help: ArgumentHelp("Sessions held at once to see what each takes, 1…20,000.", valueName: "n"))
  var held = 10_000

  func validate() throws {
    guard (1...1_000).contains(connections) else { throw ValidationError("--connections must be from 1 to 1000") }
    guard (1...20_000).contains(held) else { throw ValidationError("--held must be from 1 to 20000") }
  }

  func run() async throws {
    try await Bench.run("poll", options) { servers, report in
      try await PollBench(command: self, servers: servers).run(&report)
    }
  }
}

/// `postrider bench fetch`
struct BenchFetchCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "fetch",
    abstract: "Mail fetched, parsed and stored: many small messages, few new among many, and big ones.",
    discussion: """
      Scheduler and worker run in this process over a private PostgreSQL and Redis; the small messages come from a private
      Dovecot, the big ones from the benchmark's own server. The big part writes (20 + sessions) × size to disk.

      Examples:
        postrider bench fetch
        postrider bench fetch --json --mailboxes 20 --messages 10 --big-sessions 4 --big-mb 5
      """)

  @OptionGroup var options: BenchOptions

  @Option(name: .long, help: ArgumentHelp("Mailboxes of small messages, 1…1,000.", valueName: "n"))
  var mailboxes = 200

  @Option(name: .long, help: ArgumentHelp("Messages of 10 kB in each of them, 1…10,000.", valueName: "n"))
  var messages = 50

  @Option(name: .long, help: ArgumentHelp("Sessions at once on big messages, 1…1,000.", valueName: "n"))
  var bigSessions = 200

  @Option(name: .long, help: ArgumentHelp("Size of big messages in MB, 1…50.", valueName: "n"))
  var bigMB = 25

  func validate() throws {
    guard (1...1_000).contains(mailboxes) else { throw ValidationError("--mailboxes must be from 1 to 1000") }
    guard (1...10_000).contains(messages) else { throw ValidationError("--messages must be from 1 to 10000") }
    guard (1...1_000).contains(bigSessions) else { throw ValidationError("--big-sessions must be from 1 to 1000") }
    guard (1...50).contains(bigMB) else { throw ValidationError("--big-mb must be from 1 to 50") }
  }

  func run() async throws {
    try await Bench.run("fetch", options) { servers, report in
      try await FetchBench(command: self, servers: servers).run(&report)
    }
  }
}
