import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import Telemetry

/// Finds the endpoint of a request, and turns every error into a problem document.
///
/// Every answer carries a request id and the security headers.
struct EndpointResponder: HTTPResponder {
  typealias Context = APIContext

  let endpoints: [Endpoint]
  let channel: ChannelKind
  let trustedProxies: TrustedProxies
  let logger: Logger

  func respond(to request: Request, context: APIContext) async throws -> Response {
    let began = ContinuousClock.now
    let requestID = RequestIdentifier.of(request)
    var logger = logger
    logger[metadataKey: LogKeys.requestID] = "\(requestID)"
    let path = request.uri.path.split(separator: "/")
    let all = endpoints.compactMap { endpoint in endpoint.match(path).map { (endpoint, $0) } }
    // `/mailboxes/test` is that path alone, whatever the method, and not a mailbox of that number.
    let fewest = all.map(\.1.count).min()
    let matches = all.filter { $0.1.count == fewest }
    var template = "-"
    var response: Response
    do {
      guard let any = matches.first else { throw Problem.noSuchRoute }
      template = any.0.template
      let isHead = request.method == .head
      guard let (endpoint, parameters) = matches.first(where: { $0.0.method == (isHead ? .get : request.method) })
      else { throw Problem.methodNotAllowed(matches.map(\.0.method)) }
      response = try await endpoint.respond(
        IncomingRequest(
          request: request, parameters: parameters, isSecure: isSecure(request, context),
          clientAddress: trustedProxies.client(context.remoteAddress, request.headers)?.signInGroup ?? "local",
          requestID: requestID, logger: logger))
      if isHead { response = response.createHeadResponse() }
    } catch {
      response = Problem.from(error, requestID: requestID, logger: logger).response()
    }
    addHeaders(to: &response, requestID)
    if logger.logLevel <= .debug {
      let elapsed = ContinuousClock.now - began
      // The template instead of the path: queries and paths can hold addresses.
      logger.debug(
        "A request was answered",
        metadata: [
          LogKeys.httpMethod: "\(request.method)", LogKeys.httpRoute: "\(template)",
          LogKeys.httpStatus: "\(response.status.code)", LogKeys.milliseconds: "\(elapsed.wholeMilliseconds)",
        ])
    }
    return response
  }

  private func isSecure(_ request: Request, _ context: APIContext) -> Bool {
    switch channel {
    case .unixSocket, .tls: return true
    case .plain: return trustedProxies.saysSecure(context.remoteAddress, request.headers)
    }
  }

  private func addHeaders(to response: inout Response, _ requestID: String) {
    response.headers[.requestID] = requestID
    response.headers[.xContentTypeOptions] = "nosniff"
    response.headers[.cacheControl] = "no-store"
    response.headers[.referrerPolicy] = "no-referrer"
    response.headers[.frameOptions] = "DENY"
    response.headers[.contentSecurityPolicy] = "default-src 'none'; frame-ancestors 'none'; sandbox"
  }
}

/// The id by which a request is found in the log.
enum RequestIdentifier {
  /// The client's own id when it is harmless (1…64 letters, digits, `-`, `_`, `.`), else a new one.
  static func of(_ request: Request) -> String {
    if let own = request.headers[.requestID], (1...64).contains(own.utf8.count),
      own.utf8.allSatisfy({ isHarmless($0) })
    {
      return own
    }
    let digits = String(UInt64.random(in: 0 ... .max), radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }

  private static func isHarmless(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."):
      true
    default: false
    }
  }
}

extension HTTPField.Name {
  // Each literal is a valid field name, so none of these is ever nil.
  static let requestID = HTTPField.Name("X-Request-ID") ?? .date
  static let referrerPolicy = HTTPField.Name("Referrer-Policy") ?? .date
  static let frameOptions = HTTPField.Name("X-Frame-Options") ?? .date
  static let forwardedFor = HTTPField.Name("X-Forwarded-For") ?? .date
  static let forwardedProtocol = HTTPField.Name("X-Forwarded-Proto") ?? .date
}

extension StringProtocol {
  /// Without spaces and tabs at both ends.
  func trimmingSpaces() -> String {
    let isSpace: (Character) -> Bool = { $0 == " " || $0 == "\t" }
    return String(String(drop(while: isSpace).reversed().drop(while: isSpace).reversed()))
  }
}

extension Duration {
  /// Rounded down.
  var wholeMilliseconds: Int64 { components.seconds * 1_000 + components.attoseconds / 1_000_000_000_000_000 }
}
