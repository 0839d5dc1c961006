import PostriderCore

/// The API as an OpenAPI 3.1 document, made of the table of routes.
struct OpenAPIDocument {
  private let configuration: AdminServerConfiguration
  private let routes: [RouteDescription]

  init(_ configuration: AdminServerConfiguration, routes: [RouteDescription] = AdminServer.routes) {
    self.configuration = configuration
    self.routes = routes
  }

  var json: JSONValue {
    var schemas: [String: JSONValue] = ["Problem": Self.problem]
    var paths: [(path: String, operations: JSONValue)] = []
    for route in routes {
      let operation = operation(route, &schemas)
      if let index = paths.firstIndex(where: { $0.path == route.path }) {
        paths[index].operations[route.method.lowercased()] = operation
      } else {
        paths.append((route.path, .object([.init(key: route.method.lowercased(), value: operation)])))
      }
    }
    let sorted = schemas.sorted { $0.key < $1.key }
    let components: JSONValue = [
      "securitySchemes": Self.securitySchemes, "schemas": Self.object(sorted.map { ($0.key, $0.value) }),
      "responses": Self.object(
        ProblemCatalog.all.map { ("Problem\($0.status)", Self.response(of: $0.codes, $0.title)) }),
      "headers": Self.headers,
    ]
    let tags: [JSONValue] = tags.map { tag in ["name": .string(tag)] }
    return [
      "openapi": "3.1.0", "info": info, "servers": [["url": "/"]], "security": [["bearer": []]], "tags": .array(tags),
      "paths": Self.object(paths.map { ($0.path, $0.operations) }), "components": components,
    ]
  }

  private static func object(_ members: [(key: String, value: JSONValue)]) -> JSONValue {
    .object(members.map { JSONValue.Member(key: $0.key, value: $0.value) })
  }

  private var info: JSONValue {
    [
      "title": "Postrider", "version": .string(configuration.version),
      "summary": "Administration of server-side synchronization of mailboxes.", "description": .string(introduction),
      "license": ["name": "Apache 2.0", "identifier": "Apache-2.0"],
    ]
  }

  private static let securitySchemes: JSONValue = [
    "bearer": [
      "type": "http", "scheme": "bearer",
      "description": "A token of `postrider init` or `postrider token create`: Authorization: Bearer <token>.",
    ]
  ]

  // MARK: One route

  private func operation(_ route: RouteDescription, _ schemas: inout [String: JSONValue]) -> JSONValue {
    var operation: JSONValue = [
      "operationId": .string(Self.identifier(route)), "summary": .string(route.summary),
      "tags": [.string(Self.tag(route))],
    ]
    if case .right(let right) = route.access {
      let roles = Role.allCases.filter { $0.rights.contains(right) }.map(\.rawValue).joined(separator: ", ")
      operation["description"] = .string("Needs the right \(right.rawValue), which these roles have: \(roles).")
    }
    if route.access == .open { operation["security"] = [] }
    let parameters = pathParameters(route) + queryParameters(route) + headerParameters(route)
    if !parameters.isEmpty { operation["parameters"] = .array(parameters) }
    if let body = requestBody(route) { operation["requestBody"] = body }
    operation["responses"] = responses(route, &schemas)
    return operation
  }

  private static func segments(_ route: RouteDescription) -> [Substring] {
    let path = route.path.hasPrefix(APIRoutes.prefix) ? route.path.dropFirst(APIRoutes.prefix.count) : route.path[...]
    return path.split(separator: "/")
  }

  /// `getMailboxesId`.
  private static func identifier(_ route: RouteDescription) -> String {
    let words = segments(route).flatMap { $0.split { !$0.isLetter } }
    let name = words.map { $0.prefix(1).uppercased() + $0.dropFirst() }.joined()
    return route.method.lowercased() + (name.isEmpty ? "Index" : name)
  }

  private static func tag(_ route: RouteDescription) -> String {
    route.path.hasPrefix(APIRoutes.prefix) ? segments(route).first.map(String.init) ?? "process" : "process"
  }

  private var tags: [String] {
    var tags: [String] = []
    for tag in routes.map(Self.tag) where !tags.contains(tag) { tags.append(tag) }
    return tags
  }

  private func pathParameters(_ route: RouteDescription) -> [JSONValue] {
    route.path.split(separator: "/").filter { $0.hasPrefix("{") }.map { segment in
      [
        "name": .string(String(segment.dropFirst().dropLast())), "in": "path", "required": true,
        "description": "Which one, by its number.",
        "schema": JSONShape.identifier.schema(),
      ]
    }
  }

  private func queryParameters(_ route: RouteDescription) -> [JSONValue] {
    guard let message = route.messageQuery else { return route.query.map(\.json) }
    // They belong to one of two media types, which OpenAPI cannot say but in words.
    return route.query.map(\.json)
      + message.map { parameter in
        var json = parameter.json
        if route.body != nil { json["required"] = false }
        guard route.body != nil else { return json }
        json["description"] = .string(
          "Only with a body of the type \(route.messageType ?? "")\(parameter.isRequired ? ", and required there" : ""): "
            + parameter.help)
        return json
      }
  }

  private func headerParameters(_ route: RouteDescription) -> [JSONValue] {
    if route.takesIdempotencyKey {
      return [
        [
          "name": "Idempotency-Key", "in": "header", "required": false,
          "schema": ["type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"],
          "description":
            "Sent again with the same key within 24 hours, the request does nothing and is answered as before.",
        ]
      ]
    }
    if route.path.hasSuffix("/events") {
      return [
        [
          "name": "Last-Event-ID", "in": "header", "required": false, "schema": ["type": "string"],
          "description": "The id of the last event that was seen; only what is newer is sent.",
        ]
      ]
    }
    if route.takesVersion {
      return [
        [
          "name": "If-Match", "in": "header", "required": false, "schema": ["type": "string"],
          "description": .string(
            "The ETag of the representation that the change is meant for; refused with 412 when there is a newer version."
          ),
        ]
      ]
    }
    if route.answersTag {
      return [
        [
          "name": "If-None-Match", "in": "header", "required": false, "schema": ["type": "string"],
          "description": "An ETag from before; 304 without a body when nothing has changed.",
        ]
      ]
    }
    return []
  }

  private func requestBody(_ route: RouteDescription) -> JSONValue? {
    guard let shape = route.body else {
      guard let type = route.messageType else { return nil }
      let text =
        "At most \(configuration.maximumMessageOctets) octets, within \(configuration.messageTimeout.wholeSeconds) s."
      return [
        "description": .string(text), "required": true,
        "content": .object([.init(key: type, value: ["schema": ["type": "string"]])]),
      ]
    }
    let octets = !route.takesFiles ? configuration.maximumBodyOctets : configuration.maximumFilesOctets
    var media: JSONValue = ["schema": shape.schema()]
    media["example"] = shape.example
    var content: JSONValue = ["application/json": media]
    var text = "At most \(octets) octets, within \(configuration.requestTimeout.wholeSeconds) s."
    if route.messageQuery != nil {
      content["message/rfc822"] = ["schema": ["type": "string"]]
      text +=
        " A whole message may come as it stands instead (message/rfc822): at most "
        + "\(configuration.maximumMessageOctets) octets, within \(configuration.messageTimeout.wholeSeconds) s."
    }
    return ["description": .string(text), "required": .boolean(shape != .nothing), "content": content]
  }

  // MARK: Answers

  private func responses(_ route: RouteDescription, _ schemas: inout [String: JSONValue]) -> JSONValue {
    let shape = route.answer ?? .unreadable("")
    let content: JSONValue = .object([.init(key: shape.mediaType, value: ["schema": shape.schema(&schemas)])])
    var headers: JSONValue = ["X-Request-ID": ["$ref": "#/components/headers/RequestID"]]
    if (201...202).contains(route.status) && shape.hasIdentifier {
      headers["Location"] = ["$ref": "#/components/headers/Location"]
    }
    if route.answersTag { headers["ETag"] = ["$ref": "#/components/headers/ETag"] }
    var responses: JSONValue = .object([
      .init(
        key: String(route.status),
        value: ["description": .string(route.summary), "headers": headers, "content": content])
    ])
    if route.answersTag && route.method == "GET" {
      responses["304"] = ["description": "Nothing has changed since the ETag in If-None-Match.", "headers": headers]
    }
    if route.showsFailures {
      responses["503"] = ["description": "Something fails.", "headers": headers, "content": content]
    }
    for status in route.problemStatuses where !(status == 503 && route.showsFailures) {
      responses[String(status)] = ["$ref": .string("#/components/responses/Problem\(status)")]
    }
    if shape.mediaType == "text/html" {
      // People see it, so what they can do wrong is answered for people.
      var page = Self.response(of: [("malformed-request", "the address was opened by hand")], "Bad Request")
      page["content"] = ["text/html": ["schema": ["type": "string"]], "application/problem+json": Self.problemMedia]
      responses["400"] = page
    }
    return responses
  }

  private static let problemMedia: JSONValue = ["schema": ["$ref": "#/components/schemas/Problem"]]

  private static func response(of codes: [ProblemCatalog.Entry], _ title: String) -> JSONValue {
    let list = codes.map { "- `\($0.code)`: \($0.meaning)" }.joined(separator: "\n")
    return [
      "description": .string("\(title). Codes:\n\n\(list)"),
      "headers": ["X-Request-ID": ["$ref": "#/components/headers/RequestID"]],
      "content": ["application/problem+json": problemMedia],
    ]
  }

  private static let problem: JSONValue = [
    "type": "object", "description": "An error (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": [
      "type": ["type": "string", "format": "uri", "description": "urn:postrider:problem:<code>"],
      "title": ["type": "string", "description": "The status in words."],
      "status": ["type": "integer", "description": "The HTTP status."],
      "detail": ["type": "string", "description": "What is wrong and what would be right, for people."],
      "code": ["type": "string", "description": "Stable, for programs."],
      "errors": [
        "type": "array", "description": "Every wrong value of a 422.",
        "items": [
          "type": "object", "required": ["pointer", "code", "message"],
          "properties": [
            "pointer": [
              "type": "string",
              "description":
                "A JSON pointer into the body, ?name of the query, {name} of the path; of a message header:name, line:12.",
            ],
            "code": ["type": "string", "description": "What is wrong, for programs."],
            "message": ["type": "string", "description": "What would be right, for people."],
          ],
        ],
      ],
      "requestID": ["type": "string", "description": "By which the log knows the request; only in a 500."],
    ],
  ]

  private static let headers: JSONValue = [
    "RequestID": [
      "description": "By which the log knows the request: the client's own when it is harmless, else a new one.",
      "schema": ["type": "string"],
    ],
    "Location": ["description": "The path of what was made.", "schema": ["type": "string"]],
    "ETag": [
      "description": "The version and the content: for If-Match the version counts, for If-None-Match both.",
      "schema": ["type": "string"],
    ],
  ]

  private var introduction: String {
    """
    Errors are problem documents (RFC 9457) with a stable code. A field that is null is one that is left out; absent values \
    are left out of answers, which may gain fields in later releases. Times are ISO 8601 with a time zone, ids are positive \
    whole numbers. Fields and parameters that are not documented are refused.

    Lists come in pages: pass nextCursor as cursor for the next one, with the same filters. Beyond 10,000 rows total is an \
    estimate, and totalIsEstimate says so.

    Limits: a body has at most \(configuration.maximumBodyOctets) octets and a request \
    \(configuration.requestTimeout.wholeSeconds) s, but where it says otherwise; a listener takes \
    \(configuration.maximumConnections) connections, and one that is idle for \
    \(configuration.idleTimeout.wholeSeconds) s is closed. Secrets are taken over TLS or a Unix socket only, unless the \
    deployment property allowCredentialsEntryViaNonSecureChannels is on.

    This document and what the tag process has need no token.
    """
  }
}

extension RouteDescription {
  /// Whether the body may name the version that a change is meant for, and so the header If-Match.
  var takesVersion: Bool {
    guard case .object(let fields) = body else { return false }
    return fields.contains { $0.name == "version" }
  }

  /// Whether the answer is one thing that has a version, and so an ETag.
  var answersTag: Bool {
    guard case .object(let object) = answer else { return false }
    return object.properties.contains { $0.name == "version" && $0.shape == .integer }
  }

  /// The statuses of the problems that the route answers, in order.
  var problemStatuses: [Int] {
    guard path.hasPrefix(APIRoutes.prefix) else {
      switch answer {
      case .octets("text/html"): return [404, 503]
      case .octets("text/plain"): return [404]
      default: return []
      }
    }
    var statuses: Set<Int> = [401, 404, 422, 500, 503]
    if access != .signedIn || body?.holdsSecrets == true { statuses.insert(403) }
    if body != nil || messageType != nil { statuses.formUnion([400, 408, 409, 413, 415]) }
    if takesVersion { statuses.insert(412) }
    // Everybody may, but only with what is their own.
    if path.contains("/tokens") || path.hasSuffix("/password") { statuses.insert(403) }
    if method == "DELETE" { statuses.insert(409) }
    if access == .open { statuses.insert(429) }
    if messageType == "text/csv" { statuses.insert(403) }
    if case .octets = answer { statuses.insert(409) }
    return statuses.sorted()
  }
}

extension JSONShape {
  /// Whether a secret stands anywhere in it.
  var holdsSecrets: Bool {
    switch self {
    case .secret: true
    case .array(let item, _): item.holdsSecrets
    case .object(let fields): fields.contains { $0.shape.holdsSecrets }
    default: false
    }
  }
}

extension AnswerShape {
  /// Whether it is a thing that has a path of its own.
  fileprivate var hasIdentifier: Bool {
    guard case .object(let object) = self else { return false }
    return object.properties.contains { $0.name == "id" }
  }
}

extension Duration {
  fileprivate var wholeSeconds: Int64 { components.seconds }
}
