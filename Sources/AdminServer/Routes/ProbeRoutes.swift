import HTTPTypes
import Hummingbird
import NIOCore
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
    description("/healthz", "Whether the process is alive."),
    description("/readyz", "Whether everything it needs answers; 503 with reasons when not."),
    description("/metrics", "The metrics, for Prometheus."),
    description("/", "Name, version and links."),
  ]

  private static func description(_ path: String, _ summary: String) -> RouteDescription {
    RouteDescription(method: "GET", path: path, access: .open, query: [], body: nil, status: 200, summary: summary)
  }

  /// How long a check may take.
  private static let checkTimeLimit = Duration.seconds(2)

  private struct Health: Encodable {
    let status: String
  }

  private struct Readiness: Encodable {
    struct Check: Encodable {
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
    lifetime: Duration
  ) {
    self.liveness = liveness
    self.registry = registry
    readiness = SingleFlightCache(lifetime: lifetime) { await Self.run(checks) }
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

/// `GET /`: what this is and where to go on.
enum IndexRoute {
  private struct Index: Encodable {
    let name = "postrider"
    let version: String
    let links: [String: String]
  }

  static func endpoint(_ version: String) -> Endpoint {
    Endpoint(.get, "/") { _ in
      let links = ["api": APIRoutes.prefix, "health": "/healthz", "ready": "/readyz", "metrics": "/metrics"]
      return Response(
        status: .ok, headers: [.contentType: "application/json; charset=utf-8"],
        body: .init(byteBuffer: try APICoding.encode(Index(version: version, links: links))))
    }
  }
}
