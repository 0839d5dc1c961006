import Foundation
import MailProtocols
import NIOPosix
import PostriderCore
import PrivateServers

/// A running cheap server.
struct CheapServer: Sendable {
  let port: Int
  let program: PrivateProgram

  /// Starts one in a process of its own.
  static func start(
    _ name: String, _ arguments: [String], certificate: TestAuthority.Leaf? = nil, in directory: DataDirectory
  ) async throws -> CheapServer {
    guard let program = Bundle.main.executablePath else {
      throw BenchFailure(description: "the path of this program is unknown")
    }
    let file = "\(directory.path)/\(name).port"
    var all = ["bench", "pop3-server", "--port-file", file] + arguments
    if let certificate { all += ["--certificate", certificate.certificatePath, "--key", certificate.keyPath] }
    let running = try await PrivateProgram.start(name, program: program, arguments: all, in: directory)
    let deadline = ContinuousClock.now + .seconds(30)
    while true {
      if let text = try? String(contentsOfFile: file, encoding: .utf8), let port = Int(text) {
        return CheapServer(port: port, program: running)
      }
      guard running.isRunning, .now < deadline else {
        let log = (try? String(contentsOfFile: directory.logPath(name), encoding: .utf8)) ?? ""
        await running.stop()
        throw BenchFailure(description: "the benchmark's own mail server did not start:\n\(log.suffix(1_000))")
      }
      try await Task.sleep(for: .milliseconds(20))
    }
  }

  /// Lends one for the time of a closure.
  static func with<Result: Sendable>(
    _ name: String, _ arguments: [String] = [], certificate: TestAuthority.Leaf? = nil, in directory: DataDirectory,
    _ body: (CheapServer) async throws -> Result
  ) async throws -> Result {
    let server = try await start(name, arguments, certificate: certificate, in: directory)
    do {
      let result = try await body(server)
      await server.program.stop()
      return result
    } catch {
      await server.program.stop()
      throw error
    }
  }
}

/// Polls of mailboxes, over the client that workers use.
struct BenchPoller: Sendable {
  var endpoint: MailEndpoint
  var users: [String] = ["bench"]
  var password = "bench"

  private static func client() throws -> MailClient {
    MailClient(group: MultiThreadedEventLoopGroup.singleton, egress: try EgressPolicy(allow: "127.0.0.0/8:*"))
  }

  /// An endpoint on this machine.
  static func endpoint(_ port: Int, caPEM: String? = nil) -> MailEndpoint {
    MailEndpoint(
      kind: .pop3, host: "127.0.0.1", port: port, tls: caPEM == nil ? .none : .implicit, caCertificatesPEM: caPEM,
      connectTimeout: .seconds(60), answerTimeout: .seconds(60))
  }

  private func credentials(_ number: Int) -> Credentials {
    Credentials(userName: users[number % users.count], password: Secret(password))
  }

  /// What polls cost.
  struct Cost: Sendable {
    var sessions: Int
    var cpuSeconds: Double
    var seconds: Double

    var cpuPerThousand: Double { cpuSeconds / Double(max(1, sessions)) * 1_000 }
    var perSecond: Double { Double(sessions) / seconds }
  }

  /// Polls again and again, so many at once, for a time. The first polls are not counted: they make what stays.
  func poll(connections: Int, seconds: Double) async throws -> Cost {
    let client = try Self.client()
    let endpoint = endpoint
    func run(_ seconds: Double) async throws -> Int {
      let end = ContinuousClock.now + .seconds(seconds)
      return try await withThrowingTaskGroup(of: Int.self) { group in
        for number in 0..<connections {
          let credentials = credentials(number)
          group.addTask(executorPreference: client.executor) {
            var count = 0
            while ContinuousClock.now < end {
              let session = try await client.openPOP3(endpoint, trace: SessionTrace(direction: .incoming))
              do {
                try await session.authenticate(credentials, mechanism: .plain)
                try await session.list()
                try await session.quit()
              } catch {
                session.abort()
                throw error
              }
              count += 1
            }
            return count
          }
        }
        return try await group.reduce(0, +)
      }
    }
    _ = try await run(min(1, seconds / 2))
    let (cpu, began) = (Machine.ownCPUSeconds, ContinuousClock.now)
    let sessions = try await run(seconds)
    return Cost(
      sessions: sessions, cpuSeconds: Machine.ownCPUSeconds - cpu, seconds: (ContinuousClock.now - began).inSeconds)
  }

  /// Holds so many sessions that are logged in and do nothing; returns how many could be had, and what each takes.
  func hold(_ count: Int) async throws -> (sessions: Int, octetsEach: Double) {
    let client = try Self.client()
    let endpoint = endpoint
    // What the first ones make stays; it is nobody's in particular.
    let warm = try await Self.open(client, endpoint, credentials(0))
    let before = Machine.residentOctets
    var held: [POP3Session] = []
    var next = 0
    while next < count {
      let batch = min(200, count - next)
      let opened = await withTaskGroup(of: POP3Session?.self) { group in
        for number in next..<next + batch {
          let credentials = credentials(number)
          // One that cannot be had ends the search below.
          group.addTask { try? await Self.open(client, endpoint, credentials) }
        }
        return await group.reduce(into: [POP3Session?]()) { $0.append($1) }
      }
      held += opened.compactMap { $0 }
      next += batch
      if opened.contains(where: { $0 == nil }) { break }
    }
    let after = Machine.residentOctets
    for session in held + [warm] { session.abort() }
    return (held.count, Double(after - before) / Double(max(1, held.count)))
  }

  private static func open(
    _ client: MailClient, _ endpoint: MailEndpoint, _ credentials: Credentials
  ) async throws -> POP3Session {
    let session = try await client.openPOP3(endpoint, trace: SessionTrace(direction: .incoming))
    do {
      try await session.authenticate(credentials, mechanism: .plain)
      return session
    } catch {
      session.abort()
      throw error
    }
  }
}
