import Foundation
import PostriderCore
import PrivateServers

/// `bench poll`: what an empty poll costs the client, and what an idle session takes.
struct PollBench: Sendable {
  let command: BenchPollCommand
  let servers: BenchServers

  private var seconds: Double { Double(command.options.seconds) }

  func run(_ report: inout BenchReport) async throws {
    Machine.raiseFileLimit()
    report.load.merge([
      "connections": .integer(command.connections), "held": .integer(command.held),
      "session": "connect, greeting, CAPA, AUTH PLAIN, UIDL of an empty mailbox, QUIT", "tls": "TLS 1.3, P-256",
    ]) { $1 }
    let authority = try await TestAuthority.open(in: servers.directory.path + "/tls", owner: servers.directory.user)
    let leaf = try await authority.leaf("bench", for: ["127.0.0.1", "localhost"])
    let caPEM = authority.certificatePEM
    try await measureOwnServer(leaf, caPEM, &report)
    try await measureDistance(&report)
    try await measureDovecot(leaf, caPEM, &report)
    try await measureFetchmail(leaf, authority, &report)
  }

  private func measureOwnServer(
    _ leaf: TestAuthority.Leaf, _ caPEM: String, _ report: inout BenchReport
  ) async throws {
    Bench.say("Empty polls in plain text …")
    let (plain, idle) = try await CheapServer.with("plain", in: servers.directory) { server in
      let poller = BenchPoller(endpoint: BenchPoller.endpoint(server.port))
      return (
        try await poller.poll(connections: command.connections, seconds: seconds), try await poller.hold(command.held)
      )
    }
    Bench.say("Empty polls over TLS …")
    let (tls, idleTLS) = try await CheapServer.with("tls", certificate: leaf, in: servers.directory) { server in
      let poller = BenchPoller(endpoint: BenchPoller.endpoint(server.port, caPEM: caPEM))
      return (
        try await poller.poll(connections: command.connections, seconds: seconds), try await poller.hold(command.held)
      )
    }
    report.add(
      "cpu_s_per_1000_plain", plain.cpuPerThousand, "CPU seconds of the client for 1,000 empty polls",
      goal: .atMost(0.10))
    report.add(
      "cpu_s_per_1000_tls", tls.cpuPerThousand, "the same with a full TLS handshake each, certificate verified",
      goal: .atMost(1.2))
    // The library that carries TLS cannot resume a session as a client, so each handshake is a full one.
    report.add(
      "cpu_s_per_1000_tls_resumed", tls.cpuPerThousand, "the same: handshakes are not resumed yet", goal: .atMost(0.7))
    report.add("polls_per_s", plain.perSecond, "empty polls a second in plain text, server on the same machine")
    report.add("polls_per_s_tls", tls.perSecond, "the same over TLS")
    report.add(
      "bytes_per_session_plain", idle.octetsEach, "resident memory of an idle session", goal: .atMost(48 * 1_024))
    report.add(
      "bytes_per_session_tls", idleTLS.octetsEach, "resident memory of an idle session over TLS",
      goal: .atMost(128 * 1_024))
    report.add(
      "max_sessions", Double(min(idle.sessions, idleTLS.sessions)), "sessions held at once",
      goal: .atLeast(Double(command.held)))
  }

  /// The same with 20 ms between a command and its answer.
  private func measureDistance(_ report: inout BenchReport) async throws {
    Bench.say("Empty polls through 20 ms of round trip …")
    let (lockstep, pipelined) = try await CheapServer.with("far", ["--delay", "20"], in: servers.directory) { far in
      try await CheapServer.with("far-pipelined", ["--delay", "20", "--pipelining"], in: servers.directory) { ahead in
        (
          try await BenchPoller(endpoint: BenchPoller.endpoint(far.port)).poll(connections: 1_000, seconds: seconds),
          try await BenchPoller(endpoint: BenchPoller.endpoint(ahead.port)).poll(connections: 1_000, seconds: seconds)
        )
      }
    }
    report.add(
      "polls_per_s_rtt20", lockstep.perSecond, "polls a second over 1,000 connections, 20 ms to each answer",
      goal: .atLeast(5_000))
    report.add(
      "polls_per_s_rtt20_pipelined", pipelined.perSecond, "the same where the server pipelines",
      goal: .atLeast(10_000))
  }

  private func measureDovecot(
    _ leaf: TestAuthority.Leaf, _ caPEM: String, _ report: inout BenchReport
  ) async throws {
    Bench.say("Empty polls of Dovecot …")
    let users = (1...max(1, command.connections)).map { "user\($0)@bench.test" }
    let (plain, tls) = try await BenchDovecot.with(users, leaf, in: servers.directory) { dovecot in
      func poller(_ port: Int, _ caPEM: String?) -> BenchPoller {
        BenchPoller(endpoint: BenchPoller.endpoint(port, caPEM: caPEM), users: users, password: BenchDovecot.password)
      }
      return (
        try await poller(dovecot.pop3Port, nil).poll(connections: command.connections, seconds: seconds),
        try await poller(dovecot.pop3sPort, caPEM).poll(connections: command.connections, seconds: seconds)
      )
    }
    report.add("cpu_s_per_1000_plain_dovecot", plain.cpuPerThousand, "CPU of the client against Dovecot, plain text")
    report.add("cpu_s_per_1000_tls_dovecot", tls.cpuPerThousand, "the same over TLS")
    report.add("polls_per_s_dovecot", plain.perSecond, "empty polls of Dovecot a second, on the same machine")
  }

  /// Another client in the same run, where it is installed.
  private func measureFetchmail(
    _ leaf: TestAuthority.Leaf, _ authority: TestAuthority, _ report: inout BenchReport
  ) async throws {
    Bench.say("Empty polls by fetchmail …")
    let plain = try await CheapServer.with("fetchmail", in: servers.directory) {
      try await Fetchmail(directory: servers.directory.path).poll(1_000, port: $0.port, caPath: nil)
    }
    let tls = try await CheapServer.with("fetchmail-tls", certificate: leaf, in: servers.directory) {
      try await Fetchmail(directory: servers.directory.path).poll(
        1_000, port: $0.port, caPath: authority.certificatePath)
    }
    report.load["fetchmail"] = plain == nil ? "not installed, so not measured: apt-get install fetchmail" : "measured"
    report.addMachine("cpu_s_per_1000_plain_fetchmail", plain, "CPU seconds of fetchmail for 1,000 empty polls")
    report.addMachine("cpu_s_per_1000_tls_fetchmail", tls, "the same over TLS")
  }
}
