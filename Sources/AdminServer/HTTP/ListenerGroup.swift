import Hummingbird
import HummingbirdCore
import Logging
import NIOCore
import ServiceLifecycle
import Synchronization
import Telemetry

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Serves the same endpoints on several listeners, as one service.
struct ListenerGroup: Sendable {
  enum Listener: Hashable, Sendable {
    case unixSocket(String)
    case tcp(TCPListener)
  }

  struct Limits: Sendable {
    var connections: Int
    var idle: Duration
    var grace: Duration
    /// How often the files of a certificate are looked at.
    var certificateInterval: Duration = .seconds(60)
  }

  private let listeners: [Listener]
  private let endpoints: [Endpoint]
  private let trustedProxies: TrustedProxies
  private let limits: Limits
  private let logger: Logger
  private let bound: BoundAddresses
  /// Those that are served, once they were read.
  private let certificates = Certificates()

  init(
    _ listeners: [Listener], endpoints: [Endpoint], trustedProxies: TrustedProxies, limits: Limits, logger: Logger
  ) {
    self.listeners = listeners
    self.endpoints = endpoints
    self.trustedProxies = trustedProxies
    self.limits = limits
    self.logger = logger
    bound = BoundAddresses(count: listeners.count)
  }

  func listening() async throws -> [BoundAddress] { try await bound.all() }

  /// Reads the certificates' files now.
  func reloadCertificates() { for certificate in certificates.all { certificate.reload() } }

  /// When the first of the served certificates ends, in seconds since 1970; `nil` without TLS.
  var firstCertificateExpires: Int? { certificates.all.map(\.expires).min() }

  func run() async throws {
    do {
      if listeners.isEmpty { throw ListenError.nothingToServe }
      try await serveAll()
      bound.fail(CancellationError())
    } catch {
      bound.fail(error)
      throw error
    }
  }

  private enum Event {
    case listenerEnded
    case graceIsOver
  }

  private func serveAll() async throws {
    try await withThrowingTaskGroup(of: Event.self) { group in
      defer { group.cancelAll() }
      for (index, listener) in listeners.enumerated() {
        group.addTask {
          try await serve(listener, index)
          return .listenerEnded
        }
      }
      group.addTask {
        try await gracefulShutdown()
        try await Task.sleep(for: limits.grace)
        return .graceIsOver
      }
      var ended = 0
      while ended < listeners.count, let event = try await group.next() {
        switch event {
        case .listenerEnded: ended += 1
        case .graceIsOver:
          logger.warning("Requests were still running after the grace period and are cut off")
          return
        }
      }
    }
  }

  private func serve(_ listener: Listener, _ index: Int) async throws {
    switch listener {
    case .tcp(let tcp):
      let certificate = try tcp.tls.map { try ServerCertificate($0, logger: logger) }
      let application = application(
        .hostname(tcp.host, port: tcp.port), certificate == nil ? .plain : .tls, certificate
      ) { channel in
        announce(
          .tcp(host: tcp.host, port: channel.localAddress?.port ?? tcp.port, tls: tcp.tls != nil), index)
      }
      if let certificate { certificates.add(certificate) }
      // Ends with this scope.
      async let _ = certificate?.watch(every: limits.certificateInterval)
      try await run(application, "\(tcp.host):\(tcp.port)")
    case .unixSocket(let path):
      let file = try UnixSocketFile(preparing: path)
      let outcome = Mutex<Result<UnixSocketFile.Identity, any Error>?>(nil)
      let application = application(.unixDomainSocket(path: file.temporaryPath), .unixSocket, nil) { channel in
        do {
          let identity = try file.publish()
          outcome.withLock { $0 = .success(identity) }
          announce(.unixSocket(path: path), index)
        } catch {
          outcome.withLock { $0 = .failure(error) }
          channel.close(promise: nil)
        }
      }
      defer {
        if case .success(let identity)? = outcome.withLock({ $0 }) { file.remove(identity) } else { file.discard() }
      }
      try await run(application, path)
      if case .failure(let error)? = outcome.withLock({ $0 }) { throw error }
    }
  }

  private func run(_ application: Application<EndpointResponder>, _ address: String) async throws {
    do {
      try await application.run()
    } catch let error as IOError where error.errnoCode == EADDRINUSE {
      throw ListenError.inUse(address)
    } catch let error as IOError {
      throw ListenError.system(what: "listen on \(address)", reason: error.description)
    }
  }

  private func application(
    _ address: BindAddress, _ kind: ChannelKind, _ certificate: ServerCertificate?,
    onListening: @escaping @Sendable (any Channel) -> Void
  ) -> Application<EndpointResponder> {
    let connection = HTTP1Channel.Configuration(
      idleTimeout: TimeAmount(limits.idle),
      httpDecoderConfiguration: .init(
        maxHeaderFieldSize: 16 * 1_024, maxHeaderListSize: 64 * 1_024, maxHeaderFieldCount: 100))
    let server = HTTPServerBuilder { responder in
      let http = HTTP1Channel(responder: responder, configuration: connection)
      guard let certificate else { return http }
      return SecuredChannel(http: http, certificate: certificate)
    }
    var configuration = ApplicationConfiguration(address: address)
    configuration.availableConnectionsDelegate = MaximumAvailableConnections(limits.connections)
    // Hummingbird's own sentences about start and stop are left out; the responder has a logger of its own.
    var quiet = logger
    quiet.logLevel = max(logger.logLevel, .warning)
    return Application(
      responder: responder(kind), server: server, configuration: configuration,
      onServerRunning: { onListening($0) }, logger: quiet)
  }

  /// The answers of one way in; tests use it without a listener.
  func responder(_ kind: ChannelKind) -> EndpointResponder {
    EndpointResponder(endpoints: endpoints, channel: kind, trustedProxies: trustedProxies, logger: logger)
  }

  private func announce(_ address: BoundAddress, _ index: Int) {
    logger.info("Serving", metadata: [LogKeys.address: "\(address)"])
    bound.set(address, index)
  }
}

/// The certificates of listeners that run.
private final class Certificates: Sendable {
  private let list = Mutex<[ServerCertificate]>([])

  var all: [ServerCertificate] { list.withLock { $0 } }

  func add(_ certificate: ServerCertificate) { list.withLock { $0.append(certificate) } }
}

/// The addresses as they become known, and those who wait for all of them.
final class BoundAddresses: Sendable {
  private struct State {
    var addresses: [BoundAddress?]
    var failure: (any Error)?
    var waiting: [CheckedContinuation<[BoundAddress], any Error>] = []

    var result: Result<[BoundAddress], any Error>? {
      let known = addresses.compactMap { $0 }
      if known.count == addresses.count && !known.isEmpty { return .success(known) }
      return failure.map { .failure($0) }
    }
  }

  private let state: Mutex<State>

  init(count: Int) { state = Mutex(State(addresses: [BoundAddress?](repeating: nil, count: count))) }

  func set(_ address: BoundAddress, _ index: Int) { change { $0.addresses[index] = address } }

  func fail(_ error: any Error) { change { $0.failure = $0.failure ?? error } }

  private func change(_ change: (inout State) -> Void) {
    let (result, waiting) = state.withLock { state in
      change(&state)
      guard let result = state.result else {
        return (nil as Result<[BoundAddress], any Error>?, [CheckedContinuation<[BoundAddress], any Error>]())
      }
      defer { state.waiting = [] }
      return (result, state.waiting)
    }
    if let result { for continuation in waiting { continuation.resume(with: result) } }
  }

  func all() async throws -> [BoundAddress] {
    try await withCheckedThrowingContinuation { continuation in
      let ready = state.withLock { state in
        let result = state.result
        if result == nil { state.waiting.append(continuation) }
        return result
      }
      if let ready { continuation.resume(with: ready) }
    }
  }
}
