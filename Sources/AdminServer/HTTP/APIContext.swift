import Hummingbird
import Logging
import NIOCore

/// What is known of a request before it is routed.
struct APIContext: RequestContext {
  var coreContext: CoreRequestContextStorage
  /// The other end; `nil` for Unix sockets.
  let remoteAddress: SocketAddress?

  init(source: ApplicationRequestContextSource) {
    coreContext = CoreRequestContextStorage(source: source)
    remoteAddress = source.channel.remoteAddress
  }
}

/// The way a request came.
enum ChannelKind: String, Sendable {
  case unixSocket = "unix"
  case tls
  case plain
}

/// A request with everything that the responder found out about it.
struct IncomingRequest: Sendable {
  let request: Request
  /// The values of the path's `{names}`.
  let parameters: [String: String]
  /// Whether nobody on the way can read it (feature A5): a Unix socket, TLS, or a trusted proxy that says so.
  let isSecure: Bool
  /// Whose attempts to sign in are counted together: the client's address, as a trusted proxy names it, of IPv6 the
  /// network (/64); `local` for a Unix socket.
  let clientAddress: String
  /// As in `X-Request-ID`.
  let requestID: String
  /// Carries the request's id.
  let logger: Logger
}

/// A method and path with its answer.
struct Endpoint: Sendable {
  let method: HTTPRequest.Method
  /// `/api/v1/mailboxes/{id}`.
  let template: String
  let respond: @Sendable (IncomingRequest) async throws -> Response

  /// The template's segments.
  let segments: [Substring]

  init(
    _ method: HTTPRequest.Method, _ template: String,
    respond: @escaping @Sendable (IncomingRequest) async throws -> Response
  ) {
    self.method = method
    self.template = template
    self.respond = respond
    segments = template.split(separator: "/")
  }

  /// The values of the template's names, or `nil` when the path is another one.
  func match(_ path: [Substring]) -> [String: String]? {
    guard path.count == segments.count else { return nil }
    var parameters: [String: String] = [:]
    for (segment, part) in zip(segments, path) {
      if segment.hasPrefix("{") {
        parameters[String(segment.dropFirst().dropLast())] = String(part)
      } else if segment != part {
        return nil
      }
    }
    return parameters
  }
}
