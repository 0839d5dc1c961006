import Foundation
import PostgresStore
import PostriderCore
import PostriderTesting
import PrivateServers
import Synchronization
import Testing

#if canImport(FoundationNetworking)
  import FoundationNetworking
#endif

/// What a command left behind.
struct CommandResult: Sendable {
  var exitCode: Int
  var output: String
  var errors: String
}

/// A role of an installation as a process of its own.
struct RoleProcess: Sendable {
  let role: String
  let program: RunningProgram
  let probePort: Int
  /// The API's port, of an API.
  var apiPort = 0

  /// Asks its API.
  func get<Value: Decodable>(_ type: Value.Type, _ path: String, token: String) async throws -> Value {
    var request = URLRequest(url: try #require(URL(string: "http://127.0.0.1:\(apiPort)/api/v1/\(path)")))
    request.setValue("Bearer \(token)", forHTTPHeaderField: "Authorization")
    let (data, _) = try await URLSession.shared.data(for: request)
    return try JSONDecoder().decode(type, from: data)
  }

  /// `/readyz`, and what it says.
  func readiness() async throws -> (ready: Bool, text: String) {
    let url = try #require(URL(string: "http://127.0.0.1:\(probePort)/readyz"))
    let (data, response) = try await URLSession.shared.data(from: url)
    return ((response as? HTTPURLResponse)?.statusCode == 200, String(decoding: data, as: UTF8.self))
  }

  /// Waits until it is ready.
  func waitUntilReady(sourceLocation: SourceLocation = #_sourceLocation) async throws {
    let ready = await eventually(within: .seconds(180)) { (try? await readiness().ready) == true }
    try #require(ready, "the \(role) is not ready: \(program.errors)", sourceLocation: sourceLocation)
  }

  /// What a counter or gauge of it shows, over all its labels.
  func metric(_ name: String) async throws -> Double {
    let url = try #require(URL(string: "http://127.0.0.1:\(probePort)/metrics"))
    let (data, _) = try await URLSession.shared.data(from: url)
    return String(decoding: data, as: UTF8.self).split(separator: "\n").filter { $0.hasPrefix(name) }
      .compactMap { $0.split(separator: " ").last.flatMap { Double($0) } }.reduce(0, +)
  }

  /// Ends it as an orchestrator does; it must end by itself and in order.
  func stop(sourceLocation: SourceLocation = #_sourceLocation) async {
    program.signal(SIGTERM)
    let code = await program.exit()
    #expect(code == 0, "the \(role) ended with \(code): \(program.errors)", sourceLocation: sourceLocation)
  }

  /// Ends it as the kernel does.
  func kill() async {
    program.signal(SIGKILL)
    _ = await program.exit()
  }

  /// What it said of level error.
  var errors: [Substring] { program.errors.split(separator: "\n").filter { $0.contains(" ERROR ") } }
}

/// An installation of real processes over a database and a Redis of its own, driven by its commands.
///
/// Roles that still run when a test lets go of it are killed: a test whose expectation threw does not come to stopping
/// them. A test uses it last by ``forget()``.
final class Installation: Sendable {
  /// What the processes are given.
  struct Places: Sendable {
    /// The database as the processes see it.
    var databaseURL: String
    /// The way past a pooler; `nil` for the same.
    var directURL: String?
    /// The owner's; `nil` for the same.
    var migrateURL: String?
    var redisURL: String
    var keys: String
    /// Further variables of every process.
    var more: [String: String] = [:]
  }

  let places: Places
  let office: PostOffice
  let folder: String
  private let started = Mutex<[RunningProgram]>([])

  init(_ places: Places, office: PostOffice) throws {
    self.places = places
    self.office = office
    folder = "/tmp/pr-deploy-\(UUID().uuidString.prefix(8).lowercased())"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
  }

  deinit {
    for program in started.withLock({ $0 }) { program.signal(SIGKILL) }
  }

  /// Its folder is removed.
  func forget() { try? FileManager.default.removeItem(atPath: folder) }  // Left over, it harms nobody.

  private var socket: String { "\(folder)/api.sock" }

  var environment: [String: String] {
    var variables = [
      "POSTRIDER_DATABASE_URL": places.databaseURL, "POSTRIDER_REDIS_URL": places.redisURL,
      "POSTRIDER_KEYS_RING": places.keys, "POSTRIDER_EGRESS_ALLOW": "127.0.0.0/8:*",
      "POSTRIDER_MAIL_ALLOW_NON_TLS": "true", "POSTRIDER_WORKER_HELO": "worker.example.org",
    ]
    variables["POSTRIDER_DATABASE_DIRECT_URL"] = places.directURL
    variables["POSTRIDER_DATABASE_MIGRATE_URL"] = places.migrateURL
    return variables.merging(places.more) { $1 }
  }

  /// Runs a command with the processes' variables; it must succeed.
  @discardableResult
  func command(
    _ arguments: String..., program: String = Program.path, sourceLocation: SourceLocation = #_sourceLocation
  ) async throws -> String {
    let running = try RunningProgram(arguments, executable: program, environment: environment)
    let code = await running.exit()
    defer { running.forget() }
    try #require(code == 0, "\(arguments): \(running.errors)", sourceLocation: sourceLocation)
    return running.output
  }

  /// Starts a role; it is ready some time later.
  func start(
    _ role: String, program: String = Program.path, keys: String? = nil, more: [String: String] = [:]
  ) throws -> RoleProcess {
    let port = try LoopbackPort.free()
    var variables = environment.merging(more) { $1 }
    variables["POSTRIDER_PROBE_PORT"] = String(port)
    if let keys { variables["POSTRIDER_KEYS_RING"] = keys }
    var apiPort = 0
    if role == "api" {
      apiPort = try LoopbackPort.free()
      variables["POSTRIDER_API_PORT"] = String(apiPort)
      variables["POSTRIDER_API_SOCKET"] = socket
    }
    let running = try RunningProgram([role], executable: program, environment: variables)
    started.withLock { $0.append(running) }
    return RoleProcess(role: role, program: running, probePort: port, apiPort: apiPort)
  }

  // MARK: The administrator

  /// Makes the organization; returns its administrator's token.
  func initialize(program: String = Program.path) async throws -> String {
    try await command("init", "--organization", "Example", "--admin-address", "ada@example.org", program: program)
      .trimmingCharacters(in: .whitespacesAndNewlines)
  }

  /// Runs a command of the administrator's.
  func admin(
    _ token: String, _ arguments: [String], program: String = Program.path, input: String = ""
  ) async throws -> CommandResult {
    let running = try RunningProgram(
      arguments, executable: program,
      environment: [
        "POSTRIDER_API_URL": "http+unix://" + socket.replacing("/", with: "%2F"), "POSTRIDER_TOKEN": token,
        "POSTRIDER_MAILBOX_PASSWORD": PostOffice.password,
      ], input: input)
    let code = await running.exit()
    defer { running.forget() }
    return CommandResult(exitCode: code, output: running.output, errors: running.errors)
  }

  /// The same; it must succeed.
  @discardableResult
  func did(
    _ token: String, _ arguments: String..., program: String = Program.path, input: String = "",
    sourceLocation: SourceLocation = #_sourceLocation
  ) async throws -> String {
    let result = try await admin(token, arguments, program: program, input: input)
    try #require(
      result.exitCode == 0, "\(arguments): \(result.output)\(result.errors)", sourceLocation: sourceLocation)
    return result.output
  }

  /// The same with `--json`, read.
  func json<Value: Decodable>(
    _ type: Value.Type, _ token: String, _ arguments: String..., sourceLocation: SourceLocation = #_sourceLocation
  ) async throws -> Value {
    let result = try await admin(token, arguments + ["--json"])
    try #require(result.exitCode == 0, "\(arguments): \(result.errors)", sourceLocation: sourceLocation)
    let decoder = JSONDecoder()
    decoder.dateDecodingStrategy = .custom { decoder in
      let text = try decoder.singleValueContainer().decode(String.self)
      return try Date(text, strategy: Date.ISO8601FormatStyle(includingFractionalSeconds: true))
    }
    return try decoder.decode(type, from: Data(result.output.utf8))
  }

  /// A profile of the post office with mailboxes that are tested and enabled in both directions.
  func furnish(
    _ token: String, mailboxes count: Int, connections: Int = 10, program: String = Program.path
  ) async throws -> [String] {
    let addresses = (1...count).map { "user\($0)@example.org" }
    try await did(
      token, "profile", "create", "--name", "Office", "--incoming-host", "127.0.0.1", "--incoming-port",
      String(office.incomingPort), "--incoming-tls", "none", "--outgoing-host", "127.0.0.1", "--outgoing-port",
      String(office.outgoingPort), "--outgoing-tls", "none", "--mechanism", "plain", "--interval", "1",
      "--max-connections",
      String(connections), "--default", program: program)
    for address in addresses {
      try await did(token, "mailbox", "create", "--address", address, program: program)
    }
    _ = try await many(token, ["mailbox", "approve"], addresses, program: program)
    _ = try await many(token, ["mailbox", "test"], addresses, program: program)
    return addresses
  }

  /// A command for several mailboxes; it must succeed.
  @discardableResult
  func many(
    _ token: String, _ command: [String], _ addresses: [String], program: String = Program.path,
    sourceLocation: SourceLocation = #_sourceLocation
  ) async throws -> String {
    let result = try await admin(token, command + addresses, program: program)
    try #require(result.exitCode == 0, "\(command): \(result.output)\(result.errors)", sourceLocation: sourceLocation)
    return result.output
  }

  /// Submits a message from a mailbox.
  func send(_ token: String, from address: String, program: String = Program.path) async throws {
    try await did(
      token, "email", "send", "--from", address, "--to", "somebody@example.com", "--subject", "Hi", "--text-file", "-",
      program: program, input: "Hello\n")
  }

  /// How often each Message-ID is stored for an address.
  func stored(_ token: String, for address: String) async throws -> [String: Int] {
    let page = try await json(Page<EmailRecord>.self, token, "email", "list", "--mailbox", address, "--limit", "500")
    return Dictionary(page.items.compactMap(\.envelope.messageID).map { ($0, 1) }, uniquingKeysWith: +)
  }

  /// The messages that were submitted, in any state.
  func submitted(_ token: String) async throws -> [OutgoingEmail] {
    try await json(Page<OutgoingEmail>.self, token, "email", "outgoing", "list", "--limit", "500").items
  }

  /// Everything that was offered is stored once, everything that was submitted was taken once.
  func expectNothingLostOrDoubled(
    _ token: String, _ addresses: [String], sourceLocation: SourceLocation = #_sourceLocation
  ) async throws {
    for address in addresses {
      let offered = office.offered(to: address)
      var stored: [String: Int] = [:]
      let complete = try await eventually(within: .seconds(180)) {
        stored = try await self.stored(token, for: address)
        return Set(stored.keys) == offered
      }
      #expect(complete, "\(address): \(stored.count) of \(offered.count)", sourceLocation: sourceLocation)
      #expect(stored.values.allSatisfy { $0 == 1 }, "\(address): \(stored)", sourceLocation: sourceLocation)
    }
    var sent: [OutgoingEmail] = []
    let all = try await eventually(within: .seconds(180)) {
      sent = try await submitted(token)
      return sent.allSatisfy { $0.state == .sent }
    }
    #expect(all, "\(sent.map { "\($0.id) \($0.state)" })", sourceLocation: sourceLocation)
    #expect(
      office.taken == Dictionary(sent.map { ($0.messageID, 1) }, uniquingKeysWith: +), sourceLocation: sourceLocation)
    #expect(office.refusals == 0, sourceLocation: sourceLocation)
  }
}
