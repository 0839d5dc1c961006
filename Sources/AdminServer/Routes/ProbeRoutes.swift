import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import Synchronization
import Telemetry

/// Something that must answer before a process is ready.
struct HealthCheck: Sendable {
  let name: String
  let check: @Sendable () async throws -> Void

  init(_ name: String, _ check: @escaping @Sendable () async throws -> Void) {
    self.name = name
    self.check = check
  }
}

/// `/healthz`, `/readyz` and `/metrics`, the same for every process and without a token.
struct ProbeRoutes: Sendable {
  /// The routes as data.
  static let descriptions = [
    description("/healthz", .of(Health.self), "Whether the process is alive.", showsFailures: true),
    description(
      "/readyz", .of(Readiness.self), "Whether everything it needs answers; 503 with reasons when not.",
      showsFailures: true),
    description("/metrics", .octets(mediaType: "text/plain"), "The metrics, for Prometheus."),
    description("/", .of(IndexRoute.Index.self), "Name, version and links."),
  ]

  private static func description(
    _ path: String, _ answer: AnswerShape, _ summary: String, showsFailures: Bool = false
  ) -> RouteDescription {
    RouteDescription(
      method: "GET", path: path, access: .open, query: [], body: nil, status: 200, summary: summary, answer: answer,
      showsFailures: showsFailures)
  }

  /// How long a check may take.
  private static let checkTimeLimit = Duration.seconds(2)

  private struct Health: Codable {
    let status: String
  }

  private struct Readiness: Codable {
    struct Check: Codable {
      let name: String
      let ok: Bool
      let reason: String?
    }
    let status: String
    let checks: [Check]
  }

  private let liveness: @Sendable () -> Bool
  private let registry: PrometheusRegistry?
  // Nobody needs a token to ask, so asking often must not cost PostgreSQL and Redis anything.
  private let readiness: SingleFlightCache<Readiness>

  init(
    checks: [HealthCheck], liveness: @escaping @Sendable () -> Bool, registry: PrometheusRegistry?,
    lifetime: Duration, logger: Logger
  ) {
    self.liveness = liveness
    self.registry = registry
    let changes = ReadinessLog(logger)
    readiness = SingleFlightCache(lifetime: lifetime) {
      let readiness = await Self.run(checks)
      for check in readiness.checks { changes.note(check.name, check.reason) }
      return readiness
    }
  }

  var endpoints: [Endpoint] {
    var endpoints = [
      Endpoint(.get, "/healthz") { _ in
        let isAlive = liveness()
        return try Self.answer(Health(status: isAlive ? "ok" : "failing"), isGood: isAlive)
      },
      Endpoint(.get, "/readyz") { _ in
        let readiness = try await readiness.value()
        return try Self.answer(readiness, isGood: readiness.status == "ok")
      },
    ]
    if let registry {
      endpoints.append(
        Endpoint(.get, "/metrics") { _ in
          Response(
            status: .ok, headers: [.contentType: PrometheusRegistry.contentType],
            body: .init(byteBuffer: ByteBuffer(string: await registry.scrape())))
        })
    }
    return endpoints
  }

  private static func run(_ checks: [HealthCheck]) async -> Readiness {
    let results = await withTaskGroup(of: (Int, Readiness.Check).self) { group in
      for (index, check) in checks.enumerated() {
        group.addTask {
          do {
            try await withTimeLimit(checkTimeLimit, check.check)
            return (index, Readiness.Check(name: check.name, ok: true, reason: nil))
          } catch {
            return (index, Readiness.Check(name: check.name, ok: false, reason: "\(error)"))
          }
        }
      }
      var results: [(Int, Readiness.Check)] = []
      for await result in group { results.append(result) }
      return results.sorted { $0.0 < $1.0 }.map(\.1)
    }
    return Readiness(status: results.allSatisfy(\.ok) ? "ok" : "failing", checks: results)
  }

  private static func answer(_ value: some Encodable, isGood: Bool) throws -> Response {
    Response(
      status: isGood ? .ok : .serviceUnavailable, headers: [.contentType: "application/json; charset=utf-8"],
      body: .init(byteBuffer: try APICoding.encode(value)))
  }
}

/// Logs when a check begins to fail and when it passes again, not each time somebody asks.
private final class ReadinessLog: Sendable {
  private let logger: Logger
  private let failing = Mutex<Set<String>>([])

  init(_ logger: Logger) { self.logger = logger }

  func note(_ check: String, _ reason: String?) {
    if let reason {
      guard failing.withLock({ $0.insert(check).inserted }) else { return }
      logger.warning("A health check fails", metadata: [LogKeys.check: "\(check)", LogKeys.reason: "\(reason)"])
    } else if failing.withLock({ $0.remove(check) }) != nil {
      logger.notice("A health check passes again", metadata: [LogKeys.check: "\(check)"])
    }
  }
}

/// `GET /`: what this is and where to go on.
enum IndexRoute {
  struct Index: Codable {
    var name = "postrider"
    let version: String
    let links: [String: String]
  }

  static func endpoint(_ version: String) -> Endpoint {
    Endpoint(.get, "/") { _ in
      let links = [
        "api": APIRoutes.prefix, "openapi": OpenAPIRoute.path, "health": "/healthz", "ready": "/readyz",
        "metrics": "/metrics",
      ]
      return Response(
        status: .ok, headers: [.contentType: "application/json; charset=utf-8"],
        body: .init(byteBuffer: try APICoding.encode(Index(version: version, links: links))))
    }
  }
}
