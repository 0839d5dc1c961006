import Logging
import PostriderCore
import ServiceLifecycle
import Telemetry

/// The HTTP API of administration, on TCP, on a Unix socket, or on both with the same routes.
///
/// Sees PostgreSQL and Redis only through ``AdminStore`` and ``JobQueue``. With a registry it also shows `/metrics`, and
/// the queue's gauges in it.
public struct AdminServer: Service {
  private let listeners: ListenerGroup

  /// A server that listens when ``run()`` is called.
  ///
  /// - Parameters:
  ///   - configuration: where and how to serve.
  ///   - store: PostgreSQL.
  ///   - queue: Redis; read only.
  ///   - oauth: applications, consents and connections; `nil` answers 404 there.
  ///   - webhooks: likewise.
  ///   - registry: shown by `/metrics`; `nil` answers 404 there.
  ///   - logger: told about requests (debug), refusals (notice) and unexpected errors (error).
  public init(
    configuration: AdminServerConfiguration, store: any AdminStore, queue: any JobQueue,
    oauth: (any OAuthDesk)? = nil, webhooks: (any WebhookDesk)? = nil, registry: PrometheusRegistry? = nil,
    logger: Logger
  ) {
    let endpoints = AdminServer.endpoints(
      configuration, store: store, queue: queue, oauth: oauth, webhooks: webhooks, registry: registry, logger: logger)
    var kinds: [ListenerGroup.Listener] = []
    if let path = configuration.unixSocket { kinds.append(.unixSocket(path)) }
    if let tcp = configuration.tcp { kinds.append(.tcp(tcp)) }
    listeners = ListenerGroup(
      kinds, endpoints: endpoints, trustedProxies: TrustedProxies(configuration.trustedProxies),
      limits: ListenerGroup.Limits(
        connections: configuration.maximumConnections, idle: configuration.idleTimeout,
        grace: configuration.shutdownGrace, certificateInterval: configuration.certificateInterval),
      logger: logger)
    if configuration.tcp?.tls != nil, let registry {
      registry.addCollector("api-certificate", [MetricNames.certificateExpires]) { [listeners] in
        guard let seconds = listeners.firstCertificateExpires else { return [] }
        return [MetricSample(MetricNames.certificateExpires, value: Double(seconds))]
      }
    }
  }

  /// Serves until it is told to stop: takes no new requests then, and finishes those in flight within the grace.
  ///
  /// - Throws: ``ListenError`` when an address cannot be listened on.
  public func run() async throws { try await listeners.run() }

  /// Reads certificate and key from their files now, without waiting for the next look at them. What cannot be used is
  /// logged and changes nothing.
  public func reloadCertificates() { listeners.reloadCertificates() }

  /// The addresses that are listened on, Unix socket first. Waits until all of them are; call it beside ``run()``.
  ///
  /// - Throws: what ``run()`` throws when it fails before that.
  public func listening() async throws -> [BoundAddress] { try await listeners.listening() }

  /// All routes with method, path, right, body and status, for documentation and tests.
  public static var routes: [RouteDescription] {
    APIRoutes.all.map(\.description) + OpenRoute.all.map(\.description)
      + [ConsentRoute.description, OpenAPIRoute.description] + ProbeRoutes.descriptions
  }

  /// The OpenAPI 3.1 document of all routes, as `/openapi.json` answers it.
  public static func openAPI(_ configuration: AdminServerConfiguration) -> String {
    OpenAPIDocument(configuration).json.text
  }

  static func endpoints(
    _ configuration: AdminServerConfiguration, store: any AdminStore, queue: any JobQueue,
    oauth: (any OAuthDesk)? = nil, webhooks: (any WebhookDesk)? = nil, registry: PrometheusRegistry?, logger: Logger
  ) -> [Endpoint] {
    let collector = QueueCollector(
      queue: queue, lifetime: configuration.statisticsLifetime, scale: configuration.scale)
    if let registry { collector.register(in: registry) }
    let services = APIServices(
      configuration, store: store, queue: queue, statistics: collector, oauth: oauth, webhooks: webhooks)
    let pipeline = APIPipeline(services)
    let probes = ProbeRoutes(
      checks: [
        HealthCheck("postgresql") { try await store.checkHealth() },
        HealthCheck("redis") { _ = try await queue.currentEpoch() },
      ],
      liveness: { true }, registry: registry, lifetime: configuration.readinessLifetime,
      logger: logger)
    let api = APIRoutes.all.map { pipeline.endpoint($0) } + OpenRoute.all.map { pipeline.endpoint($0) }
    return api + probes.endpoints + [
      IndexRoute.endpoint(configuration.version), ConsentRoute.endpoint(oauth, configuration),
      OpenAPIRoute.endpoint(configuration),
    ]
  }
}
