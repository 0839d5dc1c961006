import NIOCore
import NIOPosix
import PostriderCore
import Synchronization

/// Opens mail sessions: looks up, checks the egress policy, connects to the checked address, protects, greets.
///
/// One client serves all sessions of a process; they share the event loops of its group. All errors are ``Failure``, or
/// `CancellationError` when the task was cancelled.
public final class MailClient: Sendable {
  /// Addresses of one host that are tried.
  private static let maximumAddresses = 8

  private let group: any EventLoopGroup
  private let egress: EgressPolicy
  private let resolver: any MailResolver
  private let tls: any TLSProvider
  /// One for each event loop of the group.
  private let executors: [LoopExecutor]
  private let nextExecutor = Atomic(0)

  /// Creates a client. The group stays its owner's to shut down.
  public convenience init(
    group: any EventLoopGroup, egress: EgressPolicy, resolver: any MailResolver = SystemResolver()
  ) {
    self.init(group: group, egress: egress, resolver: resolver, tls: NIOSSLProvider())
  }

  init(group: any EventLoopGroup, egress: EgressPolicy, resolver: any MailResolver, tls: any TLSProvider) {
    self.group = group
    self.egress = egress
    self.resolver = resolver
    self.tls = tls
    executors = group.makeIterator().map { LoopExecutor($0) }
  }

  /// Where a task that speaks with mail servers runs best: on one of the event loops, in turn, as
  /// `addTask(executorPreference:)` takes it. Sessions that are opened there stay on that loop, with their connection.
  ///
  /// Such a task must not compute for long: the other sessions of the loop wait meanwhile.
  public var executor: any TaskExecutor {
    executors[nextExecutor.wrappingAdd(1, ordering: .relaxed).newValue % executors.count]
  }

  /// The event loop this runs on, where it is one of the group's.
  private var ownLoop: (any EventLoop)? {
    MultiThreadedEventLoopGroup.currentEventLoop.flatMap { current in
      executors.contains { $0.eventLoop === current } ? current : nil
    }
  }

  /// Whether a connection may be opened; asked on the event loop, immediately before the system is asked to connect.
  ///
  /// A process that was stopped for a while learns only there that its right to connect has ended meanwhile.
  public typealias Permit = @Sendable () -> Bool

  /// Opens a POP3 session up to the login: greeting, CAPA, and STLS with CAPA again where the endpoint says so.
  ///
  /// Throws `CancellationError` when `mayConnect` says no.
  public func openPOP3(
    _ endpoint: MailEndpoint, trace: SessionTrace, mayConnect: @escaping Permit = { true }
  ) async throws -> POP3Session {
    let connection = try await open(
      endpoint, POP3Dialogue(tls: endpoint.tls), secure: .secure, trace: trace, mayConnect)
    do {
      let session = POP3Session(connection: connection, endpoint: endpoint, trace: trace)
      try await session.enter()
      return session
    } catch {
      connection.interrupt(.aborted)
      throw error
    }
  }

  /// Opens an SMTP session up to the login: greeting, EHLO, and STARTTLS with EHLO again where the endpoint says so.
  ///
  /// `heloName` is this host's own name, or an address literal. Throws `CancellationError` when `mayConnect` says no.
  public func openSMTP(
    _ endpoint: MailEndpoint, heloName: String, trace: SessionTrace, mayConnect: @escaping Permit = { true }
  ) async throws -> SMTPSession {
    guard !heloName.isEmpty, heloName.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
      throw Failure(.internalError, context: "the name for EHLO must be a host name or an address literal")
    }
    let connection = try await open(
      endpoint, SMTPDialogue(tls: endpoint.tls), secure: .secure, trace: trace, mayConnect)
    do {
      let session = SMTPSession(connection: connection, endpoint: endpoint, trace: trace)
      try await session.enter(heloName: heloName)
      return session
    } catch {
      connection.interrupt(.aborted)
      throw error
    }
  }

  private func open<Machine: Dialogue>(
    _ endpoint: MailEndpoint, _ machine: Machine, secure: Machine.Operation, trace: SessionTrace,
    _ mayConnect: @escaping Permit
  ) async throws -> DialogueConnection<Machine> {
    let deadline = NIODeadline.now() + TimeAmount(endpoint.connectTimeout)
    let place = "\(endpoint.host):\(endpoint.port)"
    let addresses = try await trace.measure(.resolve, endpoint.host) {
      let addresses = try await self.addresses(of: endpoint, until: deadline)
      return (addresses, addresses.map { $0.description }.joined(separator: ", "))
    }
    let tried = "\(place) → " + addresses.map { $0.description }.joined(separator: ", ")
    let connection = try await trace.measure(.connect, tried) {
      (try await self.connect(addresses, endpoint, machine, until: deadline, mayConnect), nil)
    }
    guard endpoint.tls == .implicit else { return connection }
    do {
      return try await trace.measure(.tls, "TLS with \(endpoint.host)") {
        connection.limitHandshake(to: max(.milliseconds(1), deadline - .now()))
        return (connection, try await connection.secure(secure, trace))
      }
    } catch {
      connection.interrupt(.aborted)
      throw error
    }
  }

  /// Looks up, checks the egress policy and connects, and closes again: whether a server can be reached from here.
  public func reach(_ endpoint: MailEndpoint, trace: SessionTrace) async throws {
    var plain = endpoint
    plain.tls = .none
    try await open(plain, POP3Dialogue(tls: .none), secure: .secure, trace: trace) { true }.interrupt(.aborted)
  }

  // MARK: The one door to the network

  /// The addresses of an endpoint, each checked; throws when any of them is denied.
  private func addresses(of endpoint: MailEndpoint, until deadline: NIODeadline) async throws -> [IPAddress] {
    let host = endpoint.host
    guard HostRules.isHost(host), host.utf8.allSatisfy({ $0 < 0x80 }) else {
      throw Failure(.dnsUnknownHost, context: "the location is not a host name")
    }
    guard egress.mayUse(port: endpoint.port), (1...65_535).contains(endpoint.port) else {
      throw Failure(.egressDenied, context: "port \(endpoint.port) of \(host) is not an allowed port")
    }
    let addresses = try await resolve(host, until: deadline)
    guard !addresses.isEmpty else { throw Failure(.dnsUnknownHost, context: "\(host) has no address") }
    for address in addresses { try egress.check(address, port: endpoint.port, host: host) }
    return Array(addresses.prefix(Self.maximumAddresses))
  }

  /// Asks the resolver, but not for longer than there is time; a lookup that hangs is left to end by itself.
  private func resolve(_ host: String, until deadline: NIODeadline) async throws -> [IPAddress] {
    if let address = IPAddress(host) { return [address] }
    let resolver = resolver
    let promise = group.next().makePromise(of: [IPAddress].self)
    let isOpen = Mutex(true)
    let finish: @Sendable (Result<[IPAddress], any Error>) -> Void = { result in
      let first = isOpen.withLock { open in
        defer { open = false }
        return open
      }
      if first { promise.completeWith(result) }
    }
    let timer = promise.futureResult.eventLoop.scheduleTask(deadline: deadline) {
      finish(.failure(Failure(.dnsTemporary, context: "no answer about \(host) in time")))
    }
    // A free task, because getaddrinfo cannot be cancelled and must not hold the session past its deadline.
    Task {
      do {
        finish(.success(try await resolver.resolve(host)))
      } catch {
        finish(.failure(error))
      }
    }
    defer { timer.cancel() }
    return try await withTaskCancellationHandler {
      try await promise.futureResult.get()
    } onCancel: {
      finish(.failure(CancellationError()))
    }
  }

  /// Connects to the first address that answers, in order, sharing the time that is left among those not tried yet.
  private func connect<Machine: Dialogue>(
    _ addresses: [IPAddress], _ endpoint: MailEndpoint, _ machine: Machine, until deadline: NIODeadline,
    _ mayConnect: @escaping Permit
  ) async throws -> DialogueConnection<Machine> {
    var last = Failure(.tcpTimeout, context: "connect to \(endpoint.host)")
    for (index, address) in addresses.enumerated() {
      let left = deadline - .now()
      if left <= .zero { break }
      let share = TimeAmount.nanoseconds(left.nanoseconds / Int64(addresses.count - index))
      do {
        return try await connect(address, endpoint, machine, within: max(share, .milliseconds(1)), mayConnect)
      } catch let error as CancellationError {
        throw error
      } catch {
        last = ConnectErrors.sort(error, "connect to \(address) port \(endpoint.port)")
      }
    }
    throw last
  }

  private func connect<Machine: Dialogue>(
    _ address: IPAddress, _ endpoint: MailEndpoint, _ machine: Machine, within time: TimeAmount,
    _ mayConnect: @escaping Permit
  ) async throws -> DialogueConnection<Machine> {
    let opening = Mutex<(any Channel)?>(nil)
    let tls = tls
    let connection = try await withTaskCancellationHandler {
      try await ClientBootstrap(group: ownLoop ?? group)
        .connectTimeout(time)
        .channelOption(.writeBufferWaterMark, value: .init(low: 16_384, high: 32_768))
        .connect(to: try address.socketAddress(port: endpoint.port)) { channel in
          opening.withLock { $0 = channel }
          return channel.eventLoop.makeCompletedFuture {
            guard mayConnect() else { throw CancellationError() }
            let handler = DialogueHandler(
              machine: machine, deadlines: endpoint.deadlines, tls: tls, requirement: endpoint.requirement,
              startsWithTLS: endpoint.tls == .implicit)
            try channel.pipeline.syncOperations.addHandlers([handler.transport, handler])
            return DialogueConnection(
              channel: channel, handler: NIOLoopBound(handler, eventLoop: channel.eventLoop))
          }
        }
    } onCancel: {
      opening.withLock { $0 }?.close(promise: nil)
    }
    if Task.isCancelled {
      connection.interrupt(.cancelled)
      throw CancellationError()
    }
    return connection
  }
}
