import HTTPTypes
import Hummingbird
import Logging
import NIOCore
import PostriderCore
import Telemetry

extension APIRoutes {
  /// Applications of profiles and connections of mailboxes.
  static let oauth: [APIRoute] = [
    .get(
      "/server-profiles/{id}/oauth-client", .right(.readProfiles), answers: .of(OAuthClient.self),
      "The OAuth application of a server profile.",
      handler: showOAuthClient),
    .post(
      "/server-profiles/{id}/oauth-client", .right(.writeProfiles), body: .oauthClientDraft, status: 200,
      answers: .of(OAuthClient.self),
      "Sets the OAuth application of a server profile; what is left out fills itself in.", handler: setOAuthClient),
    .post(
      "/server-profiles/{id}/oauth-client/remove", .right(.writeProfiles), body: .nothing, status: 200,
      answers: .of(Removed.self),
      "Removes the OAuth application of a server profile.", handler: removeOAuthClient),
    .get(
      "/mailboxes/{id}/connection", .right(.readMailboxes), answers: .of(MailboxConnection.self),
      "How a mailbox is connected by OAuth.",
      handler: showConnection),
    .post(
      "/mailboxes/{id}/connect", .right(.connectMailboxes), body: .nothing, status: 201,
      answers: .of(ConsentRequest.self),
      "Begins a consent; its owner opens the address.", handler: connectMailbox),
    .post(
      "/mailboxes/{id}/disconnect", .right(.connectMailboxes), body: .nothing, status: 200,
      answers: .of(Disconnection.self),
      "Forgets the consent for a mailbox and tells the provider.", handler: disconnectMailbox),
  ]

  private static func desk(_ services: APIServices) throws -> any OAuthDesk {
    guard let desk = services.oauth else { throw Problem.notServed("OAuth") }
    return desk
  }

  @Sendable static func showOAuthClient(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await desk(services).client(of: try call.identifier(), for: call.principal))
  }

  @Sendable static func setOAuthClient(_ services: APIServices, _ call: APICall) async throws -> Response {
    let draft = try call.decode(OAuthClientDraft.self)
    return try call.answer(
      try await desk(services).setClient(draft, of: try call.identifier(), by: call.principal))
  }

  struct Removed: Codable {
    var removed = true
  }

  @Sendable static func removeOAuthClient(_ services: APIServices, _ call: APICall) async throws -> Response {
    try await desk(services).removeClient(of: try call.identifier(), by: call.principal)
    return try call.answer(Removed())
  }

  @Sendable static func showConnection(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await desk(services).connection(of: try call.identifier(), for: call.principal))
  }

  @Sendable static func connectMailbox(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await desk(services).beginConsent(of: try call.identifier(), by: call.principal))
  }

  @Sendable static func disconnectMailbox(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await desk(services).disconnect(try call.identifier(), by: call.principal))
  }
}

/// Where the provider's page sends the browser back to. Open: the state is the proof, and is good once.
enum ConsentRoute {
  static let path = "/oauth/callback"
  static let description = RouteDescription(
    method: "GET", path: path, access: .open,
    query: [
      QueryParameter("state", .string, isRequired: true, "Which consent; good once.", in: 1...512),
      QueryParameter("code", .string, "What the provider gave for a consent.", in: 1...8_192),
      QueryParameter("error", .string, "Why there was none, in the provider's word."),
      QueryParameter("error_description", .string, "The same in the provider's sentence."),
    ], body: nil, status: 200, summary: "Ends a consent; opened by the owner's browser.",
    answer: .octets(mediaType: "text/html"))

  static func endpoint(_ desk: (any OAuthDesk)?, _ configuration: AdminServerConfiguration) -> Endpoint {
    Endpoint(.get, path) { incoming in
      guard let desk else { throw Problem.noSuchRoute }
      let answer = try Self.answer(incoming.request.uri.query ?? "")
      do {
        let address = try await withTimeLimit(configuration.requestTimeout + .seconds(10)) {
          try await desk.finishConsent(answer)
        }
        return page(.ok, "Connected", "\(address) is connected and is being tested now. You can close this window.")
      } catch let error as ConsentError {
        incoming.logger.notice("A consent came to nothing", metadata: ["error.kind": "\(error.code)"])
        return page(.badRequest, "Not connected", error.description)
      }
    }
  }

  /// Reads the query. Other parameters are left alone: providers add their own.
  private static func answer(_ query: String) throws -> ConsentAnswer {
    var values: [String: String] = [:]
    for pair in query.split(separator: "&").prefix(50) {
      let parts = pair.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard parts.count == 2, values[String(parts[0])] == nil else { continue }
      values[String(parts[0])] = String(parts[1].replacing("+", with: " ")).removingPercents
    }
    guard let state = values["state"], (1...512).contains(state.utf8.count), (values["code"]?.utf8.count ?? 0) <= 8_192
    else {
      throw Problem(.badRequest, "malformed-request", "This address is opened by the provider's page after a consent.")
    }
    return ConsentAnswer(
      state: Secret(state), code: values["code"].map { Secret($0) }, error: values["error"],
      errorDescription: values["error_description"].map { String($0.prefix(500)) })
  }

  private static func page(_ status: HTTPResponse.Status, _ title: String, _ text: String) -> Response {
    let body = """
      <!doctype html><html lang="en"><head><meta charset="utf-8"><title>\(escaped(title)) – Postrider</title></head>
      <body><h1>\(escaped(title))</h1><p>\(escaped(text))</p></body></html>

      """
    return Response(
      status: status, headers: [.contentType: "text/html; charset=utf-8"],
      body: .init(byteBuffer: ByteBuffer(string: body)))
  }

  private static func escaped(_ text: String) -> String {
    Failure.presentable(text).replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
      .replacing("\"", with: "&quot;")
  }
}

extension Problem {
  /// A part that this server was started without.
  static func notServed(_ what: String) -> Problem {
    Problem(.notFound, "not-served", "This server was started without \(what).")
  }
}

extension String {
  /// Percent-decoded; as it is when that is not possible.
  fileprivate var removingPercents: String {
    var bytes: [UInt8] = []
    var rest = Array(utf8)[...]
    while let byte = rest.popFirst() {
      let digits = rest.prefix(2)
      if byte == UInt8(ascii: "%"), digits.count == 2,
        digits.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit }),
        let value = UInt8(String(decoding: digits, as: UTF8.self), radix: 16)
      {
        bytes.append(value)
        rest = rest.dropFirst(2)
      } else {
        bytes.append(byte)
      }
    }
    return String(validating: bytes, as: UTF8.self) ?? self
  }
}
