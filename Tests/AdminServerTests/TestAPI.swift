import AsyncHTTPClient
import FoundationEssentials
import Hummingbird
import HummingbirdTesting
import Logging
import PostriderCore
import ServiceLifecycle
import Synchronization
import Telemetry
import Testing

@testable import AdminServer

/// An API with fakes behind it, asked without a network.
struct TestAPI: Sendable {
  var configuration = AdminServerConfiguration()
  var store = FakeAdminStore()
  var queue = FakeQueue()
  var registry: PrometheusRegistry? = PrometheusRegistry()
  var channel = ChannelKind.plain
  let log = CapturedLog()

  struct Answer: Sendable {
    let status: Int
    let headers: HTTPFields
    let body: [UInt8]

    var text: String { String(decoding: body, as: UTF8.self) }
    func decode<Value: Decodable>(_: Value.Type = Value.self) throws -> Value {
      try APICoding.decode(Value.self, from: Data(body))
    }
    /// The problem document; fails the test when it is none.
    func problem() throws -> Problem {
      #expect(headers[.contentType] == "application/problem+json")
      let problem = try decode(Problem.self)
      #expect(problem.status == status)
      #expect(problem.type == "urn:postrider:problem:\(problem.code)")
      return problem
    }
  }

  /// Asks several questions of one server.
  func with<Value: Sendable>(_ test: @Sendable (Client) async throws -> Value) async throws -> Value {
    let endpoints = AdminServer.endpoints(
      configuration, store: store, queue: queue, registry: registry, logger: log.logger)
    let group = ListenerGroup(
      [], endpoints: endpoints, trustedProxies: TrustedProxies(configuration.trustedProxies),
      limits: .init(connections: 1, idle: .seconds(1), grace: .zero), logger: log.logger)
    let application = Application(responder: group.responder(channel), logger: log.logger)
    return try await application.test(.router) { try await test(Client(client: $0)) }
  }

  struct Client: Sendable {
    let client: any TestClientProtocol

    func get(_ path: String, as token: String? = "administrator", headers: HTTPFields = [:]) async throws -> Answer {
      try await send(.get, path, as: token, headers: headers, body: nil)
    }

    func post(
      _ path: String, as token: String? = "administrator", headers: HTTPFields = [.contentType: "application/json"],
      _ body: String
    ) async throws -> Answer {
      try await send(.post, path, as: token, headers: headers, body: Array(body.utf8))
    }

    func patch(_ path: String, as token: String? = "administrator", _ body: String) async throws -> Answer {
      try await send(.patch, path, as: token, headers: [.contentType: "application/json"], body: Array(body.utf8))
    }

    func send(
      _ method: HTTPRequest.Method, _ path: String, as token: String?, headers: HTTPFields = [:], body: [UInt8]?
    ) async throws -> Answer {
      var headers = headers
      if let token { headers[.authorization] = "Bearer \(token)" }
      let uri = path.hasPrefix("//") ? String(path.dropFirst()) : "/api/v1\(path)"
      let answer = try await client.executeRequest(
        uri: uri, method: method, headers: headers, body: body.map { ByteBuffer(bytes: $0) })
      let found = Answer(
        status: answer.status.code, headers: answer.headers, body: Array(answer.body.readableBytesView))
      DocumentedAPI.shared.check(found, to: method, uri)
      return found
    }
  }

  /// Asks one question.
  func get(_ path: String, as token: String? = "administrator", headers: HTTPFields = [:]) async throws -> Answer {
    try await with { try await $0.get(path, as: token, headers: headers) }
  }

  /// Sends one body.
  func post(
    _ path: String, as token: String? = "administrator", headers: HTTPFields = [.contentType: "application/json"],
    _ body: String
  ) async throws -> Answer {
    try await with { try await $0.post(path, as: token, headers: headers, body) }
  }
}

/// Everything that was logged, as JSON lines.
final class CapturedLog: Sendable {
  private let lines = Mutex<[String]>([])
  var text: String { lines.withLock { $0.joined() } }
  var logger: Logger {
    Logger(label: "test") { label in
      LineLogHandler(label: label, format: .json, level: .debug) { line in self.lines.withLock { $0.append(line) } }
    }
  }
}

/// Runs a service until the test is done, then stops it gracefully.
func withRunning<Value: Sendable>(
  _ service: any Service, _ test: @Sendable @escaping () async throws -> Value
) async throws -> Value {
  let group = ServiceGroup(services: [service], logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
  return try await withThrowingTaskGroup(of: Void.self) { tasks in
    tasks.addTask { try await group.run() }
    do {
      let value = try await test()
      await group.triggerGracefulShutdown()
      try await tasks.waitForAll()
      return value
    } catch {
      tasks.cancelAll()
      throw error
    }
  }
}

/// A directory that is gone after the test; its name is short enough for a socket.
struct TemporaryDirectory: ~Copyable {
  let path: String

  init() throws {
    path = FileManager.default.temporaryDirectory.path + "/pr-" + UUID().uuidString.prefix(8)
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  // What is left behind after a failure here disturbs nobody.
  deinit { try? FileManager.default.removeItem(atPath: path) }
}
