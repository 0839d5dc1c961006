import AsyncHTTPClient
import FoundationEssentials
import MailProtocols
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import PostriderCore
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Calls web services whose addresses people enter: token endpoints and webhooks.
///
/// Under the same egress policy as mail: the name is looked up once, every address is checked, and the connection goes to
/// the literal address that was checked, so a name cannot be rebound in between. TLS is verified against the name. Without
/// TLS only this machine is called, and only where the policy allows that. Redirects are not followed, answers have a bound
/// in octets and in time, and no proxy is used.
public struct WebClient: Sendable {
  /// A call.
  public struct Request: Sendable {
    /// Where to.
    public var url: WebURL
    /// `POST` when there is a body, else `GET`.
    public var body: [UInt8]?
    /// Header fields beside `Host`, `Content-Length` and `User-Agent`.
    public var headers: [(String, String)]
    /// For all of it, from the look-up to the last octet of the answer.
    public var timeout: Duration
    /// Of the answer's body no more is read.
    public var maximumOctets: Int

    /// Describes a call.
    public init(
      _ url: WebURL, body: [UInt8]? = nil, headers: [(String, String)] = [], timeout: Duration = .seconds(20),
      maximumOctets: Int = 65_536
    ) {
      self.url = url
      self.body = body
      self.headers = headers
      self.timeout = timeout
      self.maximumOctets = maximumOctets
    }
  }

  /// An answer.
  public struct Answer: Sendable {
    /// The status, 100…999.
    public var status: Int
    /// The body, cut off at the bound.
    public var body: [UInt8]
    /// Whether there was more.
    public var isCut: Bool
    /// `Retry-After` in seconds, 1…86,400.
    public var retryAfterSeconds: Int?
  }

  /// Ports that web services may have beside those that the operator allows.
  public static let ports: Set<Int> = [443]
  /// Addresses of a name that are tried, one after the other.
  private static let maximumAddresses = 3

  private let egress: EgressPolicy
  private let resolver: any MailResolver
  private let trustRoots: NIOSSLTrustRoots

  /// A client under the operator's exceptions of the policy for mail; its ports are not taken over.
  ///
  /// - Parameter trustRootsPEM: certificates trusted instead of the system's.
  public init(egress: EgressPolicy, resolver: any MailResolver = SystemResolver(), trustRootsPEM: String? = nil) throws
  {
    self.egress = EgressPolicy(allowedPorts: Self.ports, allow: egress.allow)
    self.resolver = resolver
    trustRoots =
      try trustRootsPEM.map { .certificates(try NIOSSLCertificate.fromPEMBytes(Array($0.utf8))) } ?? .default
  }

  /// What can be said of an address before its name is looked up; throws `egress.denied`.
  public func check(_ url: WebURL) throws(Failure) {
    guard egress.mayUse(port: url.port) else {
      throw Failure(.egressDenied, context: "port \(url.port) of \(url.host) is not an allowed port")
    }
    if let address = IPAddress(url.host) { try egress.check(address, port: url.port, host: url.host) }
  }

  /// Makes a call. Throws what stood in the way, as of a mail server: `egress.denied`, `dns.…`, `tcp.…`, `tls.…`; an
  /// answer of any status is an answer.
  public func send(_ request: Request) async throws -> Answer {
    try await withThrowingTaskGroup(of: Answer.self) { group in
      defer { group.cancelAll() }
      group.addTask { try await call(request) }
      group.addTask {
        try await Task.sleep(for: request.timeout)
        throw Failure(.tcpTimeout, context: "\(request.url.host) did not answer within \(request.timeout)")
      }
      guard let answer = try await group.next() else { throw CancellationError() }
      return answer
    }
  }

  private func call(_ request: Request) async throws -> Answer {
    let url = request.url
    try check(url)
    let addresses = try await resolver.resolve(url.host)
    for address in addresses {
      try egress.check(address, port: url.port, host: url.host)
      guard url.isSecure || address.isLoopback else {
        throw Failure(.egressDenied, context: "\(url.host) is not this machine, and http:// has no TLS")
      }
    }
    var trouble = Failure(.dnsUnknownHost, context: url.host)
    for address in addresses.prefix(Self.maximumAddresses) {
      do throws(NotConnected) {
        return try await call(request, at: address)
      } catch {
        guard case .failed(let failure) = error else { throw error.underlying }
        trouble = failure
      }
    }
    throw trouble
  }

  /// Why a call came to nothing: before anything was sent, so that the next address may be tried, or for good.
  private enum NotConnected: Error {
    case failed(Failure)
    case ended(any Error)

    var underlying: any Error {
      switch self {
      case .failed(let failure): failure
      case .ended(let error): error
      }
    }
  }

  /// Whether the connection of a call was opened: what goes wrong from then on may have come after the request.
  private final class Opening: Sendable {
    private let state = Mutex(false)
    var isDone: Bool { state.withLock { $0 } }
    func finish() { state.withLock { $0 = true } }
  }

  private func call(_ request: Request, at address: IPAddress) async throws(NotConnected) -> Answer {
    let opening = Opening()
    let client = HTTPClient(
      eventLoopGroup: MultiThreadedEventLoopGroup.singleton,
      configuration: configuration(request.url, address, opening))
    let result: Result<Answer, NotConnected>
    do {
      result = .success(try await Self.exchange(request, client))
    } catch {
      result = .failure(Self.sort(error, request.url, address, wasOpen: opening.isDone))
    }
    // Nothing is lost when a connection does not close cleanly: the answer was read.
    try? await client.shutdown()
    return try result.get()
  }

  private func configuration(_ url: WebURL, _ address: IPAddress, _ opening: Opening) -> HTTPClient.Configuration {
    var tls = TLSConfiguration.makeClientConfiguration()
    tls.trustRoots = trustRoots
    tls.minimumTLSVersion = .tlsv12
    var configuration = HTTPClient.Configuration()
    configuration.tlsConfiguration = tls
    configuration.redirectConfiguration = .disallow
    configuration.timeout.connect = .seconds(10)
    configuration.connectionPool.retryConnectionEstablishment = false
    configuration.httpVersion = .http1Only
    // Called before the request goes out.
    configuration.http1_1ConnectionDebugInitializer = { channel in
      opening.finish()
      return channel.eventLoop.makeSucceededVoidFuture()
    }
    // The name stays in TLS and in `Host`; only where the connection goes is another.
    if IPAddress(url.host) == nil { configuration.dnsOverride = [url.host: address.description] }
    return configuration
  }

  private static func exchange(_ request: Request, _ client: HTTPClient) async throws -> Answer {
    var call = HTTPClientRequest(url: request.url.description)
    for (name, value) in request.headers { call.headers.add(name: name, value: value) }
    call.headers.replaceOrAdd(name: "User-Agent", value: "Postrider")
    if let body = request.body {
      call.method = .POST
      call.body = .bytes(ByteBuffer(bytes: body))
    }
    let response = try await client.execute(call, timeout: .milliseconds(request.timeout.wholeMilliseconds))
    var body: [UInt8] = []
    var isCut = false
    for try await part in response.body {
      let room = request.maximumOctets - body.count
      body += part.readableBytesView.prefix(room)
      if part.readableBytes > room {
        isCut = true
        break
      }
    }
    return Answer(
      status: Int(response.status.code), body: body, isCut: isCut,
      retryAfterSeconds: response.headers.first(name: "Retry-After").flatMap { Int($0) }.map { min(max($0, 1), 86_400) }
    )
  }

  /// With these no connection came about.
  private static let connectErrors: Set<CInt> = [ECONNREFUSED, ENETUNREACH, EHOSTUNREACH, EADDRNOTAVAIL, ETIMEDOUT]

  private static func sort(_ error: any Error, _ url: WebURL, _ address: IPAddress, wasOpen: Bool) -> NotConnected {
    let place = "\(url.host) (\(address) port \(url.port))"
    switch error {
    case is CancellationError: return .ended(error)
    case let error as HTTPClientError where error == .connectTimeout:
      return .failed(Failure(.tcpTimeout, context: place))
    case let error as HTTPClientError where error == .deadlineExceeded || error == .readTimeout:
      return .ended(Failure(.tcpTimeout, context: place))
    case let error as HTTPClientError where error == .cancelled: return .ended(CancellationError())
    case let error as NIOConnectionError:
      return .failed(unreachable(error.connectionErrors.first?.error as? IOError, "\(place): \(words(error))"))
    case let error as IOError where !wasOpen && connectErrors.contains(error.errnoCode):
      return .failed(unreachable(error, "\(place): \(words(error))"))
    case is NIOSSLError, is NIOSSLExtraError, is BoringSSLError:
      return .ended(Failure(.tlsHandshake, context: "\(place): \(words(error))"))
    // Any other error of the socket too: at the next address a refresh token or a code would be posted twice.
    default: return .ended(Failure(.tcpClosed, context: "\(place): \(words(error))"))
    }
  }

  private static func unreachable(_ error: IOError?, _ context: String) -> Failure {
    Failure(error?.errnoCode == ECONNREFUSED ? .tcpRefused : .tcpUnreachable, context: context)
  }

  /// An error of a library, cut short and harmless; none of them holds what was sent.
  private static func words(_ error: any Error) -> String {
    let text =
      switch error {
      case let error as HTTPClientError: error.shortDescription
      case let error as IOError: "errno \(error.errnoCode)"
      case let error as NIOConnectionError: error.connectionErrors.first.map { words($0.error) } ?? "not connected"
      default: "\(error)"
      }
    return Failure.presentable(String(text.prefix(200)))
  }
}

extension IPAddress {
  /// Whether it is this machine.
  var isLoopback: Bool {
    isIPv6 ? octets.dropLast().allSatisfy { $0 == 0 } && octets.last == 1 : octets.first == 127
  }
}

extension Duration {
  /// Rounded down.
  var wholeMilliseconds: Int64 { components.seconds * 1_000 + components.attoseconds / 1_000_000_000_000_000 }
}
