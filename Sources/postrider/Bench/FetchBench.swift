import Foundation
import PostriderCore
import PrivateServers

/// `bench fetch`: mail from a server into PostgreSQL, through scheduler, queue and worker.
///
/// Big messages come first: the memory that a process has once had, it keeps.
struct FetchBench: Sendable {
  let command: BenchFetchCommand
  let servers: BenchServers

  private static let smallOctets = 10_000
  private static let bigCount = 20
  /// Mailboxes with many known and few new messages.
  private static let mostlyKnown = (mailboxes: 100, listed: 5_000, new: 10)

  func run(_ report: inout BenchReport) async throws {
    let rig = try await FetchRig(
      url: try await servers.databaseURL(), redisURL: try await servers.redisURL(), directory: servers.directory)
    report.load.merge([
      "mailboxes": .integer(command.mailboxes), "messages_each": .integer(command.messages),
      "message_octets": .integer(Self.smallOctets), "big_messages": .integer(Self.bigCount),
      "big_mb": .integer(command.bigMB), "big_sessions": .integer(command.bigSessions),
      "fsync": .text(command.options.databaseURL == nil ? "on" : "as given"),
    ]) { $1 }
    // The big ones last: the gigabytes that they leave to be written to disk would slow down what comes after them.
    try await measureMostlyKnown(rig, &report)
    try await measureSmall(rig, &report)
    try await measureBig(rig, &report)
  }

  private func measureBig(_ rig: FetchRig, _ report: inout BenchReport) async throws {
    let octets = command.bigMB * 1_000_000
    Bench.say("One mailbox with \(Self.bigCount) messages of \(command.bigMB) MB …")
    let one = try await CheapServer.with(
      "big", ["--messages", "\(Self.bigCount)", "--octets", "\(octets)"], in: servers.directory
    ) { server in
      let ids = try await rig.mailboxes(["big@bench.test"], profile: "Big", port: server.port, password: "bench")
      return try await rig.fetch(ids, until: Self.bigCount, sessions: 4)
    }
    Bench.say("\(command.bigSessions) sessions on messages of \(command.bigMB) MB …")
    let many = try await CheapServer.with(
      "many", ["--messages", "1", "--octets", "\(octets)"], in: servers.directory
    ) { server in
      let addresses = (1...command.bigSessions).map { "many\($0)@bench.test" }
      let ids = try await rig.mailboxes(addresses, profile: "Many big", port: server.port, password: "bench")
      return try await rig.fetch(ids, until: command.bigSessions, sessions: command.bigSessions)
    }
    let megabytes = Double(command.bigMB)
    report.add(
      "big_mb_per_s", megabytes * Double(Self.bigCount) / one.seconds, "MB a second of one mailbox's big messages",
      goal: .atLeast(60))
    report.add(
      "big_rss_mib", Double(max(0, one.peakResident - one.residentBefore)) / 1_048_576,
      "MiB more than idle while they are fetched", goal: .atMost(64))
    report.add(
      "peak_rss_mib", Double(many.peakResident) / 1_048_576,
      "MiB resident with \(command.bigSessions) sessions on big messages at once", goal: .atMost(256))
    report.add(
      "many_big_mb_per_s", megabytes * Double(command.bigSessions) / many.seconds, "MB a second of all of them together"
    )
    report.add("big_cpu_ms_per_mb", one.cpuSeconds * 1_000 / megabytes / Double(Self.bigCount), "CPU for each MB")
  }

  private func measureMostlyKnown(_ rig: FetchRig, _ report: inout BenchReport) async throws {
    let load = Self.mostlyKnown
    Bench.say("Mailboxes with \(load.listed) messages of which \(load.new) are new …")
    let result = try await CheapServer.with(
      "known", ["--messages", "\(load.listed)", "--octets", "\(Self.smallOctets)", "--pipelining"],
      in: servers.directory
    ) { server in
      let addresses = (1...load.mailboxes).map { "known\($0)@bench.test" }
      let ids = try await rig.mailboxes(addresses, profile: "Known", port: server.port, password: "bench")
      try PostgresProbe(url: rig.url).run(
        """
        INSERT INTO ledger (mailbox_id, organization_id, uidl, state)
        SELECT m.id, m.organization_id, 'bench-message-' || n, 'stored'
        FROM mailbox m, generate_series(1, \(load.listed - load.new)) AS n WHERE m.address LIKE 'known%';
        ANALYZE ledger;
        """)
      return try await rig.fetch(ids, until: load.mailboxes * load.new, sessions: 4)
    }
    report.add(
      "cpu_ms_10_new_of_5000", result.cpuSeconds * 1_000 / Double(load.mailboxes),
      "CPU for a poll of a mailbox with 5,000 messages of which 10 are new", goal: .atMost(10))
  }

  private func measureSmall(_ rig: FetchRig, _ report: inout BenchReport) async throws {
    let users = (1...command.mailboxes).map { "small\($0)@bench.test" }
    let authority = try await TestAuthority.open(in: servers.directory.path + "/tls", owner: servers.directory.user)
    let leaf = try await authority.leaf("bench", for: ["127.0.0.1"])
    let result = try await BenchDovecot.with(users, leaf, in: servers.directory) { dovecot in
      Bench.say("Delivering \(command.mailboxes * command.messages) messages to Dovecot …")
      for user in users {
        for number in 1...command.messages {
          try dovecot.deliver(
            to: user, message: Array(BenchMail.message(octets: Self.smallOctets, number: number).utf8))
        }
      }
      let ids = try await rig.mailboxes(
        users, profile: "Dovecot", port: dovecot.pop3Port, password: BenchDovecot.password)
      Bench.say("Fetching them …")
      return try await rig.fetch(ids, until: command.mailboxes * command.messages, sessions: 64)
    }
    let messages = Double(command.mailboxes * command.messages)
    report.add(
      "messages_per_s", messages / result.seconds, "messages of 10 kB a second, parsed and in PostgreSQL",
      goal: .atLeast(3_000))
    report.add("mb_per_s", messages * Double(Self.smallOctets) / 1_000_000 / result.seconds, "the same in MB a second")
    report.add("cpu_us_per_message", result.cpuSeconds * 1_000_000 / messages, "CPU of scheduler and worker for each")
  }
}
