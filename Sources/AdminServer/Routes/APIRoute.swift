import Hummingbird
import NIOCore
import PostriderCore

/// A route of the API: its description and what it does.
struct APIRoute: Sendable {
  typealias Handler = @Sendable (APIServices, APICall) async throws -> Response

  /// Takes the call, without a body, and the message or file that comes as its body.
  typealias MessageHandler = @Sendable (APIServices, APICall, RequestBody) async throws -> Response

  var description: RouteDescription
  let method: HTTPRequest.Method
  let handler: Handler
  /// For a body that is a message or file; `nil` where it may be none.
  var messageHandler: MessageHandler?

  static func get(
    _ path: String, _ access: RouteAccess, query: [QueryParameter] = [], answers answer: AnswerShape? = nil,
    _ summary: String, handler: @escaping Handler
  ) -> APIRoute {
    APIRoute(
      description: RouteDescription(
        method: "GET", path: APIRoutes.prefix + path, access: access, query: query, body: nil, status: 200,
        summary: summary, answer: answer),
      method: .get, handler: handler)
  }

  static func post(
    _ path: String, _ access: RouteAccess, body: JSONShape, status: Int, answers answer: AnswerShape? = nil,
    _ summary: String, handler: @escaping Handler
  ) -> APIRoute {
    APIRoute(
      description: RouteDescription(
        method: "POST", path: APIRoutes.prefix + path, access: access, query: [], body: body, status: status,
        summary: summary, answer: answer),
      method: .post, handler: handler)
  }

  static func delete(
    _ path: String, _ access: RouteAccess, answers answer: AnswerShape? = nil, _ summary: String,
    handler: @escaping Handler
  ) -> APIRoute {
    APIRoute(
      description: RouteDescription(
        method: "DELETE", path: APIRoutes.prefix + path, access: access, query: [], body: nil, status: 200,
        summary: summary, answer: answer),
      method: .delete, handler: handler)
  }

  static func patch(
    _ path: String, _ access: RouteAccess, body: JSONShape, answers answer: AnswerShape? = nil, _ summary: String,
    handler: @escaping Handler
  ) -> APIRoute {
    APIRoute(
      description: RouteDescription(
        method: "PATCH", path: APIRoutes.prefix + path, access: access, query: [], body: body, status: 200,
        summary: summary, answer: answer),
      method: .patch, handler: handler)
  }
}

extension APIRoute {
  /// The same route, whose body may hold files, or be a message as it stands (`message/rfc822`) with these parameters in
  /// the query.
  func takingMessages(query: [QueryParameter], _ handler: @escaping MessageHandler) -> APIRoute {
    var route = self
    route.description.messageType = "message/rfc822"
    route.description.messageQuery = query
    route.messageHandler = handler
    route.description.takesFiles = true
    return route
  }

  /// A route whose body is always a file of this media type.
  static func upload(
    _ path: String, _ access: RouteAccess, type: String, query: [QueryParameter], status: Int,
    answers answer: AnswerShape? = nil, _ summary: String, handler: @escaping MessageHandler
  ) -> APIRoute {
    var description = RouteDescription(
      method: "POST", path: APIRoutes.prefix + path, access: access, query: [], body: nil, status: status,
      summary: summary, answer: answer)
    description.messageType = type
    description.messageQuery = query
    return APIRoute(
      description: description, method: .post,
      handler: { _, _ in throw Problem.unsupportedMediaType([type]) }, messageHandler: handler)
  }

  /// The same route, with a body that may be large.
  func takingLargeBodies() -> APIRoute {
    var route = self
    route.description.takesFiles = true
    return route
  }

  /// The same route; sent again with the same `Idempotency-Key` it answers as before and does nothing.
  func repeatable() -> APIRoute {
    var route = self
    route.description.takesIdempotencyKey = true
    return route
  }
}

/// A request that passed authentication, rights and the check of its form.
struct APICall: Sendable {
  /// Who asks.
  let principal: Principal
  /// The bearer token they ask with.
  let token: Secret
  /// The values of the path's names.
  let parameters: [String: String]
  /// The query, decoded; each name at most once and known.
  let query: [String: String]
  /// The body, of the route's shape; empty for routes without one.
  let body: [UInt8]
  /// The fields of the request's head.
  let headers: HTTPFields
  /// Whether nobody on the way can read it.
  let isSecure: Bool
  /// The status of success.
  let status: Int
  /// Whether the answer is one thing with a version, and so gets an ETag.
  var answersTag = false
  /// The field If-None-Match of a GET.
  var ifNoneMatch: String?
}

/// A right is missing; the pipeline logs and answers it.
struct MissingRight: Error {
  let right: Right
}

extension APICall {
  /// The path's `{id}`.
  func identifier<Entity>(_: Identifier<Entity>.Type = Identifier<Entity>.self) throws -> Identifier<Entity> {
    Identifier<Entity>(try number())
  }

  /// The path's `{id}` where it names nothing that has a type.
  func number() throws -> Int64 {
    guard let number = Int64(parameters["id"] ?? ""), number > 0 else {
      throw Problem.invalid([FieldProblem("{id}", "not-an-id", "must be a positive whole number")])
    }
    return number
  }

  /// Makes sure that the principal has a right which depends on what exactly is asked for.
  func require(_ right: Right) throws {
    if !principal.role.rights.contains(right) { throw MissingRight(right: right) }
  }

  /// Decodes the body.
  func decode<Value: Decodable>(_ type: Value.Type) throws -> Value { try Self.decode(type, from: body) }

  /// Decodes a body whose form was checked.
  static func decode<Value: Decodable>(_ type: Value.Type, from body: [UInt8]) throws -> Value {
    do {
      return try APICoding.decode(type, from: .init(body))
    } catch let error as DecodingError {
      // The shape was checked before, so this is a field that shape and type see differently; still a clear answer.
      throw Problem.invalid([FieldProblem(error.pointer, "wrong-type", "has a value that is not allowed")])
    }
  }

  /// Reads the query; throws every wrong parameter at once.
  func readQuery<Value>(_ read: (inout QueryReader) -> Value) throws -> Value {
    var reader = QueryReader(query)
    let value = read(&reader)
    if !reader.problems.problems.isEmpty { throw Problem.invalid(reader.problems.problems) }
    return value
  }

  /// A value as the answer.
  func answer(_ value: some Encodable, headers: HTTPFields = [:]) throws -> Response {
    let body = try APICoding.encode(value)
    var headers = headers
    if answersTag, let tag = EntityTag.of(Array(body.readableBytesView)) {
      headers[.eTag] = tag
      if let ifNoneMatch, EntityTag.isNamed(tag, in: ifNoneMatch) {
        return Response(status: .notModified, headers: [.eTag: tag])
      }
    }
    return Self.json(body, status, headers)
  }

  /// A value as an answer.
  static func answer(_ value: some Encodable, status: Int, headers: HTTPFields = [:]) throws -> Response {
    json(try APICoding.encode(value), status, headers)
  }

  private static func json(_ body: ByteBuffer, _ status: Int, _ headers: HTTPFields) -> Response {
    var headers = headers
    headers[.contentType] = "application/json; charset=utf-8"
    return Response(status: HTTPResponse.Status(code: status), headers: headers, body: .init(byteBuffer: body))
  }
}

extension DecodingError {
  fileprivate var pointer: String {
    let context: Context
    switch self {
    case .typeMismatch(_, let found), .valueNotFound(_, let found), .dataCorrupted(let found): context = found
    case .keyNotFound(let key, let found): return path(found) + "/\(key.stringValue)"
    @unknown default: return ""
    }
    return path(context)
  }

  private func path(_ context: Context) -> String {
    context.codingPath.map { "/" + ($0.intValue.map { String($0) } ?? $0.stringValue) }.joined()
  }
}
