import AdminServer
import Foundation
import PostgresStore
import PostriderCore
import RedisQueue
import ServiceLifecycle
import UnixSignals
import WebServices

extension Deployment {
  /// `/healthz`, `/readyz` and `/metrics` on the port for probes.
  ///
  /// - Parameter pulse: That of the role's main loop. The API has none: whatever would stop it stops this answer too.
  func probes(store: PostgresStore, queue: RedisJobQueue, pulse: Pulse? = nil) throws -> ProbeServer {
    ProbeServer(
      host: settings.text(.probeHost), port: settings.number(.probePort),
      checks: [
        ("postgresql", { try await store.checkHealth() }), ("redis", { try await queue.checkHealth() }),
      ], liveness: { pulse?.isAlive() ?? true }, registry: registry, logger: logger(.probes))
  }

  /// Carries batches out; belongs into every process that serves the API.
  func batches(store: PostgresStore) -> BatchRunner { BatchRunner(queue: store, logger: logger(.api)) }

  /// Reads the API's certificate anew whenever the process gets SIGHUP. Without TLS the signal keeps its meaning.
  func certificateReloads(of api: AdminServer) throws -> [any Service] {
    if try settings.apiTLS() == nil { return [] }
    return [
      Running {
        for await _ in await UnixSignalsSequence(trapping: .sighup) { api.reloadCertificates() }
      }
    ]
  }

  /// The REST API on its TCP port and, where configured, on a Unix socket.
  func api(store: PostgresStore, queue: RedisJobQueue, port: Int? = nil, socket: String? = nil) throws -> AdminServer {
    var configuration = AdminServerConfiguration(
      tcp: TCPListener(
        host: settings.text(.apiHost) ?? "127.0.0.1", port: port ?? settings.number(.apiPort),
        tls: try settings.apiTLS()),
      unixSocket: socket ?? settings.text(.apiSocket))
    configuration.allowsNonTLSMail = settings.flag(.allowsNonTLS)
    configuration.allowsCredentialsEntryViaNonSecureChannels = settings.flag(.allowsInsecureCredentials)
    configuration.trustedProxies = settings.networks(.apiTrustedProxies)
    configuration.maximumMessageOctets = Int64(settings.number(.apiMaximumMessage)) << 20
    configuration.spoolDirectory = settings.text(.apiSpool) ?? "/tmp"
    configuration.version = Version.text
    configuration.scale = ScaleRule(
      targetSeconds: Double(settings.number(.scaleTarget)), slotsPerWorker: settings.number(.scaleSlots),
      assumedSlotsPerWorker: settings.number(.workerSessions))
    let web = try webClient()
    let publicURL = settings.text(.apiPublicURL) ?? "http://127.0.0.1:\(port ?? settings.number(.apiPort))"
    return AdminServer(
      configuration: configuration, store: store, queue: queue,
      oauth: ConsentService(store: store, web: web, publicURL: publicURL),
      webhooks: WebhookService(store: store, web: web), registry: registry, logger: logger(.api))
  }
}
