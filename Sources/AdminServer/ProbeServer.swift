import Logging
import ServiceLifecycle
import Telemetry

/// Serves `/healthz`, `/readyz` and `/metrics` of a process on a port of their own, apart from the API.
public struct ProbeServer: Service {
  private let listeners: ListenerGroup

  /// A server that listens when ``run()`` is called.
  ///
  /// - Parameters:
  ///   - host: the address to listen on; `nil` for no TCP.
  ///   - port: 0…65,535; 0 lets the system choose.
  ///   - unixSocket: the path of a Unix socket; `nil` for none.
  ///   - checks: what `/readyz` asks, each for at most two seconds; a check throws the reason why it fails.
  ///   - liveness: what `/healthz` asks; `false` means that only a restart helps.
  ///   - registry: shown by `/metrics`; `nil` answers 404 there.
  ///   - logger: told when a check begins to fail and when it passes again.
  public init(
    host: String?, port: Int = 0, unixSocket: String? = nil,
    checks: [(name: String, check: @Sendable () async throws -> Void)] = [],
    liveness: @escaping @Sendable () -> Bool = { true }, registry: PrometheusRegistry?, logger: Logger
  ) {
    let probes = ProbeRoutes(
      checks: checks.map { HealthCheck($0.name, $0.check) }, liveness: liveness, registry: registry,
      lifetime: .milliseconds(500), logger: logger)
    var kinds: [ListenerGroup.Listener] = []
    if let unixSocket { kinds.append(.unixSocket(unixSocket)) }
    if let host { kinds.append(.tcp(TCPListener(host: host, port: port))) }
    listeners = ListenerGroup(
      kinds, endpoints: probes.endpoints, trustedProxies: TrustedProxies([]),
      limits: ListenerGroup.Limits(connections: 64, idle: .seconds(60), grace: .seconds(2)), logger: logger)
  }

  /// Serves until it is told to stop.
  ///
  /// - Throws: ``ListenError`` when an address cannot be listened on.
  public func run() async throws { try await listeners.run() }

  /// The addresses that are listened on. Waits until all of them are; call it beside ``run()``.
  ///
  /// - Throws: what ``run()`` throws when it fails before that.
  public func listening() async throws -> [BoundAddress] { try await listeners.listening() }
}
