import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import PostriderCore
import Telemetry

/// What happens to every request of the API before its handler: token, right, query, body, form, time limit.
///
/// In this order, so that nothing is read or told before it is known who asks.
struct APIPipeline: Sendable {
  private let services: APIServices

  init(_ services: APIServices) { self.services = services }

  private var configuration: AdminServerConfiguration { services.configuration }

  /// A route as an endpoint.
  func endpoint(_ route: APIRoute) -> Endpoint {
    Endpoint(route.method, route.description.path) { incoming in try await self.respond(route, incoming) }
  }

  /// A route that needs no token as an endpoint.
  func endpoint(_ route: OpenRoute) -> Endpoint {
    Endpoint(route.method, route.description.path) { incoming in
      let end = ContinuousClock.now + configuration.requestTimeout
      _ = try QueryReader.parse(incoming.request.uri.query, known: [])
      var body: [UInt8] = []
      if let shape = route.description.body {
        body = try await collect(
          incoming.request, maximum: configuration.maximumBodyOctets, until: end, alsoTakes: nil)
        _ = try check(body, shape, isSecure: incoming.isSecure)
      }
      let call = OpenCall(
        body: body, clientAddress: incoming.clientAddress, logger: incoming.logger, status: route.description.status)
      return try await withTimeLimit(remaining(end)) { try await route.handler(services, call) }
    }
  }

  private func respond(_ route: APIRoute, _ incoming: IncomingRequest) async throws -> Response {
    let end = ContinuousClock.now + configuration.requestTimeout
    let token = try Self.token(incoming.request)
    let principal = try await withTimeLimit(remaining(end)) { try await services.tokens.principal(token) }
    guard let principal else { throw Problem.tokenUnknown }
    do {
      return try await respond(route, incoming, principal, token, until: end)
    } catch let missing as MissingRight {
      incoming.logger.notice(
        "A request without the right was refused",
        metadata: [
          LogKeys.userID: "\(principal.userID)", LogKeys.organizationID: "\(principal.organizationID)",
          LogKeys.role: "\(principal.role.rawValue)", LogKeys.httpMethod: "\(route.description.method)",
          LogKeys.httpRoute: "\(route.description.path)",
        ])
      await record(missing, route, incoming, principal, until: end)
      throw Problem.missingRight(missing.right, principal.role)
    }
  }

  /// Writes a refusal into the audit. The request is refused also when that cannot be done.
  private func record(
    _ missing: MissingRight, _ route: APIRoute, _ incoming: IncomingRequest, _ principal: Principal,
    until end: ContinuousClock.Instant
  ) async {
    let refusal = RefusedRequest(
      method: route.description.method, route: route.description.path, right: missing.right.rawValue,
      role: principal.role)
    do {
      try await withTimeLimit(remaining(end)) { try await services.store.recordRefusal(refusal, of: principal) }
    } catch {
      incoming.logger.warning("A refusal could not be written into the audit", metadata: [LogKeys.error: "\(error)"])
    }
  }

  private func respond(
    _ route: APIRoute, _ incoming: IncomingRequest, _ principal: Principal, _ token: Secret,
    until end: ContinuousClock.Instant
  ) async throws -> Response {
    if case .right(let right) = route.description.access, !principal.role.rights.contains(right) {
      throw MissingRight(right: right)
    }
    if let handler = route.messageHandler, Self.isMessage(incoming.request, route.description.messageType) {
      return try await take(route, incoming, principal, token, handler)
    }
    let query = try QueryReader.parse(incoming.request.uri.query, known: route.description.query.map(\.name))
    let ifMatch = incoming.request.headers[.ifMatch]
    var body: [UInt8] = []
    if let shape = route.description.body {
      body = try await collect(
        incoming.request,
        maximum: route.description.takesFiles ? configuration.maximumFilesOctets : configuration.maximumBodyOctets,
        until: end, alsoTakes: route.description.messageType)
      // Where there is nothing to say, no body says it as well as an empty object.
      var value: JSONValue?
      if !body.isEmpty || shape != .nothing { value = try check(body, shape, isSecure: incoming.isSecure) }
      if let ifMatch { body = try Self.body(body, value, of: route, ifMatch: ifMatch) }
    }
    var call = APICall(
      principal: principal, token: token, parameters: incoming.parameters, query: query, body: body,
      headers: incoming.request.headers, isSecure: incoming.isSecure, status: route.description.status)
    call.answersTag = route.description.answersTag
    if route.method == .get { call.ifNoneMatch = incoming.request.headers[.ifNoneMatch] }
    do {
      return try await withTimeLimit(remaining(end)) { [call] in
        guard route.description.takesIdempotencyKey, let key = try IdempotencyKey(call, services.store) else {
          return try await route.handler(services, call)
        }
        return try await key.answer(IdempotencyKey.hash(route, call)) { try await route.handler(services, call) }
      }
    } catch StoreError.stale where ifMatch != nil {
      throw Problem.preconditionFailed
    }
  }

  /// Hands over a message while it arrives; it has more time than other bodies.
  private func take(
    _ route: APIRoute, _ incoming: IncomingRequest, _ principal: Principal, _ token: Secret,
    _ handler: @escaping APIRoute.MessageHandler
  ) async throws -> Response {
    let query = try QueryReader.parse(
      incoming.request.uri.query, known: (route.description.messageQuery ?? []).map(\.name))
    if let length = incoming.request.headers[.contentLength].flatMap({ Int64($0) }),
      length > configuration.maximumMessageOctets
    {
      throw Problem.tooLarge(configuration.maximumMessageOctets)
    }
    let call = APICall(
      principal: principal, token: token, parameters: incoming.parameters, query: query, body: [],
      headers: incoming.request.headers, isSecure: incoming.isSecure, status: route.description.status)
    let body = incoming.request.body
    // Child tasks: the body must not be read by anybody any more when this function has returned.
    return try await withThrowingTaskGroup(of: Response.self) { group in
      defer { group.cancelAll() }
      group.addTask { try await handler(services, call, body) }
      group.addTask {
        try await Task.sleep(for: configuration.messageTimeout)
        throw Problem.bodyTooSlow
      }
      guard let response = try await group.next() else { throw CancellationError() }
      return response
    }
  }

  private static func isMessage(_ request: Request, _ type: String?) -> Bool {
    mediaType(request.headers[.contentType] ?? "") == type
  }

  private func remaining(_ end: ContinuousClock.Instant) -> Duration { max(.zero, end - ContinuousClock.now) }

  /// `Authorization: Bearer …` (RFC 6750 section 2.1).
  private static func token(_ request: Request) throws -> Secret {
    guard let field = request.headers[.authorization] else { throw Problem.tokenMissing }
    let parts = field.split(separator: " ", maxSplits: 1)
    guard parts.count == 2, parts[0].lowercased() == "bearer" else { throw Problem.tokenMissing }
    let token = parts[1].trimmingSpaces()
    // Nothing else can be a token; PostgreSQL is not asked for junk.
    guard (1...512).contains(token.utf8.count), token.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
      throw Problem.tokenUnknown
    }
    return Secret(token)
  }

  private func collect(
    _ request: Request, maximum: Int, until end: ContinuousClock.Instant, alsoTakes messageType: String?
  ) async throws -> [UInt8] {
    if let type = request.headers[.contentType], !Self.isJSON(type) {
      throw Problem.unsupportedMediaType(["application/json"] + (messageType.map { [$0] } ?? []))
    }
    if let length = request.headers[.contentLength].flatMap({ Int($0) }), length > maximum {
      throw Problem.tooLarge(Int64(maximum))
    }
    // Child tasks: the body must not be read by anybody any more when this function has returned.
    let buffer = try await withThrowingTaskGroup(of: ByteBuffer.self) { group in
      defer { group.cancelAll() }
      group.addTask {
        do {
          return try await request.body.collect(upTo: maximum)
        } catch is NIOTooManyBytesError {
          throw Problem.tooLarge(Int64(maximum))
        } catch is CancellationError {
          throw Problem.bodyTooSlow
        } catch {
          throw Problem(.badRequest, "malformed-request", "The body could not be read.")
        }
      }
      group.addTask {
        try await Task.sleep(until: end, clock: .continuous)
        throw Problem.bodyTooSlow
      }
      guard let buffer = try await group.next() else { throw CancellationError() }
      return buffer
    }
    return Array(buffer.readableBytesView)
  }

  private static func mediaType(_ contentType: String) -> String {
    contentType.split(separator: ";").first.map { $0.trimmingSpaces().lowercased() } ?? ""
  }

  private static func isJSON(_ contentType: String) -> Bool {
    let type = mediaType(contentType)
    return type == "application/json" || (type.hasPrefix("application/") && type.hasSuffix("+json"))
  }

  /// The names of fields that hold secrets, wherever they stand.
  private static let secretFields = ["password", "currentPassword", "clientSecret", "privateKey"]

  private func check(_ body: [UInt8], _ shape: JSONShape, isSecure: Bool) throws -> JSONValue {
    let value: JSONValue
    do throws(JSONSyntaxError) {
      value = try JSONParser.parse(body)
    } catch {
      throw Problem.malformedJSON(error.description)
    }
    // Before the form is checked: a password at a wrong place is a password that went over an open wire all the same.
    if Self.secretFields.contains(where: { value.holds($0) }) && !isSecure
      && !configuration.allowsCredentialsEntryViaNonSecureChannels
    {
      throw Problem.insecureChannel
    }
    let problems = shape.problems(of: value)
    if !problems.isEmpty { throw Problem.invalid(problems) }
    return value
  }
}
