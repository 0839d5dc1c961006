import Hummingbird
import PostriderCore

extension APIRoutes {
  /// Tokens. Everybody manages their own; those of others need the right to manage users.
  static let tokens: [APIRoute] = [
    .get(
      "/tokens", .signedIn,
      query: [
        QueryParameter(
          "user", .identifier, "Only tokens of the user of this id; one's own without the right to manage users."),
        QueryParameter("kind", .choice(APIToken.Kind.allCases.map(\.rawValue)), "Only tokens, or only sessions."),
        QueryParameter("ended", .boolean, "Whether revoked and expired ones are shown too.", standard: "false"),
        "limit", "cursor",
      ], answers: .of(Page<APIToken>.self),
      "Tokens and sessions, newest first: one's own, or everybody's.", handler: listTokens),
    .post(
      "/tokens", .signedIn, body: .tokenDraft, status: 201,
      answers: AnswerShape.of(APIToken.self).adding("token", .string, as: "CreatedToken"),
      "Makes a token, which is shown this once.",
      handler: createToken),
    .post(
      "/tokens/{id}/revoke", .signedIn, body: .nothing, status: 200, answers: .of(APIToken.self),
      "Revokes a token or ends a session.",
      handler: revokeToken),
  ]

  @Sendable static func listTokens(_ services: APIServices, _ call: APICall) async throws -> Response {
    let (asked, page) = try call.readQuery { query in
      (
        TokenFilter(
          userID: query.identifier("user"), kind: query.choice("kind"),
          includesEnded: query.boolean("ended") ?? false), query.page()
      )
    }
    var filter = asked
    if !call.principal.role.rights.contains(.manageUsers) {
      if let user = filter.userID, user != call.principal.userID { throw MissingRight(right: .manageUsers) }
      filter.userID = call.principal.userID
    }
    return try call.answer(try await services.store.tokens(filter, page, for: call.principal))
  }

  private struct Created: Encodable {
    let token: APIToken
    let secret: String

    private enum CodingKeys: String, CodingKey {
      case secret = "token"
    }

    func encode(to encoder: any Encoder) throws {
      try token.encode(to: encoder)
      var container = encoder.container(keyedBy: CodingKeys.self)
      try container.encode(secret, forKey: .secret)
    }
  }

  @Sendable static func createToken(_ services: APIServices, _ call: APICall) async throws -> Response {
    let draft = try call.decode(TokenDraft.self)
    try PeopleRules.check(draft)
    let own = call.principal
    let user = draft.userID ?? own.userID
    if user != own.userID { try call.require(.manageUsers) }
    let role = draft.role ?? own.role
    if !own.role.covers(role) {
      throw Problem.invalid([
        FieldProblem("/role", "not-allowed", "\(role.rawValue) may do more than your own role, \(own.role.rawValue)")
      ])
    }
    let made = try await services.store.createToken(draft, role: role, of: user, by: own)
    return try call.answer(
      Created(token: made.token, secret: made.secret.revealed),
      headers: [.location: "\(prefix)/tokens/\(made.token.id)"])
  }

  @Sendable static func revokeToken(_ services: APIServices, _ call: APICall) async throws -> Response {
    let everybody = call.principal.role.rights.contains(.manageUsers)
    return try call.answer(
      try await services.store.revokeToken(
        try call.identifier(), of: everybody ? nil : call.principal.userID, by: call.principal))
  }
}
