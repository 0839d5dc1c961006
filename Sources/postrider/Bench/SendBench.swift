import ArgumentParser
import Foundation
import MailProtocols
import PostriderCore
import PrivateServers

/// `postrider bench send`
struct BenchSendCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "send",
    abstract: "Mail from many mailboxes to a sink, each message's states in PostgreSQL; memory of large messages.",
    discussion: """
      Rounds of messages of 10 kB from all mailboxes at once, each in a session of its own, take turns with smtp-source
      (Postfix), which sends as many to the same sink over as many connections. Then 16 mailboxes send a message of 25 MB
      each, at once.

      Examples:
        postrider bench send
        postrider bench send --json --messages 10000 --mailboxes 50
      """)

  @OptionGroup var options: BenchOptions

  @Option(name: .long, help: ArgumentHelp("Messages of a round, 100…100,000.", valueName: "n"))
  var messages = 2_000

  @Option(name: .long, help: ArgumentHelp("Mailboxes, and sessions at once, 16…500.", valueName: "n"))
  var mailboxes = 100

  @Option(name: .long, help: ArgumentHelp("Octets of each large message, 1…100 million.", valueName: "n"))
  var largeOctets = 25_000_000

  func validate() throws {
    guard (100...100_000).contains(messages) else { throw ValidationError("--messages must be from 100 to 100000") }
    guard (16...500).contains(mailboxes) else { throw ValidationError("--mailboxes must be from 16 to 500") }
    guard messages >= mailboxes else { throw ValidationError("--messages must be at least --mailboxes") }
    guard (1_000_000...100_000_000).contains(largeOctets) else {
      throw ValidationError("--large-octets must be from 1000000 to 100000000")
    }
  }

  func run() async throws {
    try await Bench.run("send", options) { servers, report in
      try await SendBench(command: self, servers: servers).run(&report)
    }
  }
}

/// `bench send`: sessions of real workers over real PostgreSQL and Redis to a sink in this process.
struct SendBench: Sendable {
  let command: BenchSendCommand
  let servers: BenchServers

  private static let octets = 10_000
  private static let largeMessages = 16

  /// What rounds took.
  private struct Rounds: Sendable {
    var messages = 0
    var seconds = 0.0
    var own = 0.0
    var postgres: Double?
    var redis = 0.0

    var perSecond: Double { seconds > 0 ? Double(messages) / seconds : 0 }
  }

  private struct Found: Sendable {
    var ours = Rounds()
    var source = Rounds()
    var bigSeconds = 0.0
    var bigRSS = 0.0
  }

  func run(_ report: inout BenchReport) async throws {
    let redisURL = try await servers.redisURL()
    let url = try await servers.databaseURL()
    let sink = try await SendSink.start()
    let server = ServerDraft(host: "127.0.0.1", port: sink.port, tls: TLSMode.none, mechanism: .plain)
    let senders = try await BenchSenders.create(command.mailboxes, server: server, connections: 10, in: url)
    let rig = try WorkerRig(
      databaseURL: url, redisURL: redisURL, options: .init(sessions: command.mailboxes, claimBatch: 32),
      settingsCache: command.mailboxes * 2, keyRing: senders.keyRing, egress: try EgressPolicy(allow: "127.0.0.0/8:*"))
    report.load.merge([
      "mailboxes": .integer(command.mailboxes), "messages": .integer(each * command.mailboxes),
      "octets": .integer(Self.octets), "sessions": .integer(command.mailboxes), "large_messages": 16,
      "large_octets": .integer(command.largeOctets),
      "fsync": .text(command.options.databaseURL == nil ? "on" : "as given"),
    ]) { $1 }
    let found = Mutexed<Found>()
    try await rig.run { rig in
      let database = try PostgresProbe(url: url)
      let all = senders.mailboxes
      Bench.say("Sending, for the first time …")
      _ = try await round(all, each, Self.octets, senders, rig, database, sink)
      var result = Found()
      Bench.say("\(Self.largeMessages) messages of \(command.largeOctets / 1_000_000) MB …")
      try await measureLarge(&result, senders, rig, database, sink)
      Bench.say("Messages of \(Self.octets) octets, and smtp-source …")
      repeat {
        let ours = try await round(all, each, Self.octets, senders, rig, database, sink)
        result.ours.messages += ours.messages
        result.ours.seconds += ours.seconds
        result.ours.own += ours.own
        result.ours.postgres = ours.postgres.map { (result.ours.postgres ?? 0) + $0 }
        result.ours.redis += ours.redis
        if let source = try await smtpSource(sink) {
          result.source.messages += source.messages
          result.source.seconds += source.seconds
        }
      } while result.ours.seconds < Double(command.options.seconds)
      found.value = result
    }
    await sink.stop()
    guard let found = found.value else { throw BenchFailure(description: "nothing was sent") }
    add(found, &report)
  }

  /// Messages of each mailbox in a round.
  private var each: Int { command.messages / command.mailboxes }

  private func add(_ found: Found, _ report: inout BenchReport) {
    let (ours, source) = (found.ours, found.source)
    report.add("messages_per_s", ours.perSecond, "messages a second, each with three commits of its states")
    if source.messages > 0 {
      report.add(
        "ratio_to_smtp_source", ours.perSecond / source.perSecond, "its rate over that of smtp-source",
        goal: .atLeast(0.5))
      report.addMachine(
        "smtp_source_per_s", source.perSecond, "messages a second of smtp-source to the same sink, as many sessions")
    }
    report.add("own_us_per_message", ours.own * 1e6 / Double(ours.messages), "CPU of this program: worker and sink")
    if let postgres = ours.postgres {
      report.add("postgres_us_per_message", postgres * 1e6 / Double(ours.messages), "CPU of PostgreSQL")
    }
    report.add(
      "big_rss_mib", found.bigRSS / 1_048_576, "resident memory for the large messages at once, above idle",
      goal: .atMost(64))
    report.add(
      "big_mb_per_s", Double(Self.largeMessages * command.largeOctets) / 1e6 / found.bigSeconds,
      "MB a second of the large messages")
  }

  /// Submits messages, and sends them from the moment when the mailboxes' jobs are enqueued until the last is `sent`.
  private func round(
    _ mailboxes: [MailboxID], _ each: Int, _ octets: Int, _ senders: BenchSenders, _ rig: WorkerRig,
    _ database: PostgresProbe, _ sink: SendSink, while working: @Sendable () -> Void = {}
  ) async throws -> Rounds {
    try senders.submit(each, octets: octets, from: mailboxes, database)
    let wanted = sink.messages + each * mailboxes.count
    let own = Machine.ownCPUSeconds
    let postgres = Machine.cpuSeconds(of: await servers.postgresProcess, withChildren: true)
    let began = ContinuousClock.now
    try await rig.queue.enqueue(senders.jobs(of: mailboxes))
    /// Waits, and gives up when a round takes longer than any machine needs.
    func wait(_ duration: Duration) async throws {
      try await Task.sleep(for: duration)
      guard ContinuousClock.now - began > .seconds(300) else { return }
      _ = try senders.isDone(database)
      let missing = wanted - sink.messages
      throw BenchFailure(description: "\(missing) of \(each * mailboxes.count) messages did not arrive in 5 minutes")
    }
    while sink.messages < wanted {
      working()
      try await wait(.milliseconds(2))
    }
    // Sent when the last answer is committed; the outcomes of the sessions come right after.
    while try database.number("SELECT count(*) FROM outgoing_email WHERE state IN ('pending-send', 'sending')") > 0 {
      try await wait(.milliseconds(5))
    }
    var result = Rounds(messages: each * mailboxes.count)
    result.seconds = (ContinuousClock.now - began).inSeconds
    result.own = Machine.ownCPUSeconds - own
    if let postgres, let now = Machine.cpuSeconds(of: await servers.postgresProcess, withChildren: true) {
      result.postgres = now - postgres
    }
    while try !senders.isDone(database) { try await wait(.milliseconds(20)) }
    return result
  }

  private func measureLarge(
    _ result: inout Found, _ senders: BenchSenders, _ rig: WorkerRig, _ database: PostgresProbe, _ sink: SendSink
  ) async throws {
    let mailboxes = Array(senders.mailboxes.prefix(Self.largeMessages))
    let idle = Machine.residentOctets
    let peak = Counted()
    let big = try await round(mailboxes, 1, command.largeOctets, senders, rig, database, sink) {
      peak.raise(to: Machine.residentOctets)
    }
    result.bigSeconds = big.seconds
    result.bigRSS = Double(max(0, peak.value - idle))
  }

  /// The same number of messages by smtp-source, over as many connections that stay open; `nil` where it is not installed.
  private func smtpSource(_ sink: SendSink) async throws -> Rounds? {
    let count = each * command.mailboxes
    let wanted = sink.messages + count
    let began = ContinuousClock.now
    do {
      _ = try await PrivateProgram.output(
        of: "smtp-source",
        [
          "-d", "-s", "\(command.mailboxes)", "-m", "\(count)", "-l", "\(Self.octets)", "-f", "from@bench.test", "-t",
          "to@bench.test", "127.0.0.1:\(sink.port)",
        ], package: "postfix")
    } catch PrivateServerError.missingProgram {
      return nil
    }
    let seconds = (ContinuousClock.now - began).inSeconds
    guard sink.messages == wanted else {
      throw BenchFailure(description: "smtp-source sent \(sink.messages - wanted + count) of \(count) messages")
    }
    return Rounds(messages: count, seconds: seconds)
  }
}
