import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import PostriderCore
import Synchronization

/// A web server on 127.0.0.1 that answers what a closure says: token endpoints and receivers of webhooks for tests.
///
/// One request a connection. Everything that was asked is recorded.
public final class TestHTTPServer: Sendable {
  /// What was asked.
  public struct Request: Sendable {
    /// `GET`, `POST`.
    public var method: String
    /// Without the query.
    public var path: String
    /// Percent-decoded.
    public var query: [String: String]
    /// Names in lower case.
    public var headers: [String: String]
    /// The body.
    public var body: [UInt8]

    /// The body as a form, percent-decoded.
    public var form: [String: String] { TestHTTPServer.fields(String(decoding: body, as: UTF8.self)) }
  }

  /// What is answered.
  public struct Response: Sendable {
    /// The status.
    public var status: Int
    /// Header fields beside the length.
    public var headers: [(String, String)]
    /// The body.
    public var body: [UInt8]
    /// Waited for before it is sent.
    public var after: ScriptSignal?
    /// How often the body is repeated, without a length: an answer that does not end.
    public var repetitions = 1

    /// An answer.
    public init(_ status: Int = 200, headers: [(String, String)] = [], _ body: String = "", after: ScriptSignal? = nil)
    {
      self.status = status
      self.headers = headers
      self.body = Array(body.utf8)
      self.after = after
    }

    /// JSON.
    public static func json(_ status: Int = 200, _ text: String) -> Response {
      Response(status, headers: [("Content-Type", "application/json")], text)
    }
  }

  /// The port it listens on.
  public let port: Int
  /// `http` or `https`.
  public let scheme: String
  private let channel: any Channel
  private let seen: Seen

  private final class Seen: Sendable {
    let requests = Mutex<[Request]>([])
    let answer: @Sendable (Request) async -> Response

    init(_ answer: @escaping @Sendable (Request) async -> Response) { self.answer = answer }
  }

  private init(_ channel: any Channel, _ seen: Seen, scheme: String) {
    self.channel = channel
    self.seen = seen
    self.scheme = scheme
    port = channel.localAddress?.port ?? 0
  }

  /// Starts one; with TLS it shows this certificate chain (PEM files).
  public static func start(
    certificate: (chain: String, key: String)? = nil, answer: @escaping @Sendable (Request) async -> Response
  ) async throws -> TestHTTPServer {
    let seen = Seen(answer)
    let context = try certificate.map { files in
      try NIOSSLContext(
        configuration: .makeServerConfiguration(
          certificateChain: NIOSSLCertificate.fromPEMFile(files.chain).map { .certificate($0) },
          privateKey: .privateKey(NIOSSLPrivateKey(file: files.key, format: .pem))))
    }
    let channel = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
      .childChannelInitializer { channel in
        channel.eventLoop.makeCompletedFuture {
          if let context { try channel.pipeline.syncOperations.addHandler(NIOSSLServerHandler(context: context)) }
          try channel.pipeline.syncOperations.configureHTTPServerPipeline(withPipeliningAssistance: false)
          try channel.pipeline.syncOperations.addHandler(RequestHandler(seen))
        }
      }
      .bind(host: "127.0.0.1", port: 0).get()
    return TestHTTPServer(channel, seen, scheme: certificate == nil ? "http" : "https")
  }

  /// What was asked so far.
  public var requests: [Request] { seen.requests.withLock { $0 } }

  /// An address of this server.
  public func url(_ path: String, host: String = "127.0.0.1") -> String { "\(scheme)://\(host):\(port)\(path)" }

  /// Stops listening.
  public func stop() async {
    // It may be closed already.
    try? await channel.close()
  }

  /// Takes a form or query apart.
  static func fields(_ text: String) -> [String: String] {
    var fields: [String: String] = [:]
    for pair in text.split(separator: "&") {
      let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      fields[decoded(parts[0])] = parts.count > 1 ? decoded(parts[1]) : ""
    }
    return fields
  }

  private static func decoded(_ text: Substring) -> String {
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
      if byte == UInt8(ascii: "%"), let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) {
        bytes.append(value)
        rest = rest.dropFirst(2)
      } else {
        bytes.append(byte == UInt8(ascii: "+") ? UInt8(ascii: " ") : byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  private final class RequestHandler: ChannelInboundHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias OutboundOut = HTTPServerResponsePart

    private let seen: Seen
    private var head: HTTPRequestHead?
    private var body: [UInt8] = []

    init(_ seen: Seen) { self.seen = seen }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
      switch unwrapInboundIn(data) {
      case .head(let head): self.head = head
      case .body(let part): body += part.readableBytesView
      case .end:
        guard let head else { return }
        let parts = head.uri.split(separator: "?", maxSplits: 1)
        let request = Request(
          method: head.method.rawValue, path: parts.first.map(String.init) ?? "/",
          query: parts.count > 1 ? TestHTTPServer.fields(String(parts[1])) : [:],
          headers: Dictionary(
            head.headers.map { ($0.name.lowercased(), $0.value) }, uniquingKeysWith: { first, _ in first }),
          body: body)
        Self.answer(request, seen, on: context.channel)
      }
    }

    /// In a task of its own: the closure may wait.
    private static func answer(_ request: Request, _ seen: Seen, on channel: any Channel) {
      seen.requests.withLock { $0.append(request) }
      Task {
        let response = await seen.answer(request)
        if let after = response.after { await after.wait() }
        await write(response, to: channel)
      }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    private static func write(_ response: Response, to channel: any Channel) async {
      var headers = HTTPHeaders(response.headers)
      headers.add(name: "Connection", value: "close")
      if response.repetitions == 1 { headers.add(name: "Content-Length", value: "\(response.body.count)") }
      do {
        try await channel.writeAndFlush(
          HTTPServerResponsePart.head(
            HTTPResponseHead(
              version: .http1_1, status: HTTPResponseStatus(statusCode: response.status), headers: headers)))
        for _ in 0..<response.repetitions {
          try await channel.writeAndFlush(
            HTTPServerResponsePart.body(.byteBuffer(ByteBuffer(bytes: response.body))))
        }
        try await channel.writeAndFlush(HTTPServerResponsePart.end(nil))
        try await channel.close()
      } catch {
        // The client went away, which some tests want.
      }
    }
  }
}
