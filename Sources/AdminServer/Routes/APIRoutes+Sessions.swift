import FoundationEssentials
import Hummingbird
import Logging
import PostriderCore
import Telemetry

/// A route that needs no token.
struct OpenRoute: Sendable {
  let description: RouteDescription
  let method: HTTPRequest.Method
  let handler: @Sendable (APIServices, OpenCall) async throws -> Response

  /// All of them.
  static let all = [
    OpenRoute(
      description: RouteDescription(
        method: "POST", path: APIRoutes.prefix + "/sessions", access: .open, query: [], body: .signInRequest,
        status: 201, summary: "Signs in with a password; the session's token is shown this once."),
      method: .post, handler: APIRoutes.signIn)
  ]
}

/// A request of somebody who is not known yet, whose form was checked.
struct OpenCall: Sendable {
  /// The body, of the route's shape.
  let body: [UInt8]
  /// Whose attempts are counted together.
  let clientAddress: String
  /// Carries the request's id.
  let logger: Logger
  /// The status of success.
  let status: Int
}

extension APIRoutes {
  /// The session that a request is made with.
  static let sessions: [APIRoute] = [
    .delete("/sessions/current", .signedIn, "Signs out.", handler: signOut)
  ]

  private struct SignInRequest: Decodable {
    let organization: String
    let address: String
    let password: Secret
  }

  private struct Started: Encodable {
    let token: String
    let principal: Principal
    let expiresAt: Date
    /// Seconds without a request after which it ends earlier.
    let idleSeconds: Int64
  }

  /// The answer and its time are the same for whatever is wrong: a password is computed for every attempt that is not
  /// refused for its sender's address alone.
  @Sendable static func signIn(_ services: APIServices, _ call: OpenCall) async throws -> Response {
    let request = try APICall.decode(SignInRequest.self, from: call.body)
    if let wait = services.signIns.refusal(of: call.clientAddress) {
      call.logger.notice(
        "Too many attempts to sign in from one address", metadata: [LogKeys.clientAddress: "\(call.clientAddress)"])
      throw Problem.tooManySignIns(retryAfterSeconds: wait)
    }
    // What no account can have is not asked for.
    let isPossible =
      request.organization.count <= 100 && request.address.count <= 254
      && request.password.revealed.count <= PasswordRules.length.upperBound
      && ![request.organization, request.address].contains { $0.utf8.contains(0) }
    let ticket =
      isPossible
      ? try await services.store.beginSignIn(organization: request.organization, address: request.address) : nil
    let password = isPossible ? request.password : Secret("")
    let answer = try await services.passwords.check(password, against: ticket?.hash)
    guard let ticket, answer != .wrong else {
      if let ticket { try await services.store.failSignIn(ticket) }
      call.logger.notice(
        "An attempt to sign in was refused", metadata: [LogKeys.clientAddress: "\(call.clientAddress)"])
      throw Problem.signInRefused
    }
    // Other parameters by now: stored anew, so that its check takes as long as everybody's.
    let rehashed = answer == .rightButOld ? try await services.passwords.hash(password) : nil
    let life = services.configuration.sessionLife
    guard let session = try await services.store.completeSignIn(ticket, life: life, rehashed: rehashed) else {
      throw Problem.signInRefused
    }
    return try APICall.answer(
      Started(
        token: session.token.revealed, principal: session.principal, expiresAt: session.expiresAt,
        idleSeconds: life.idle.components.seconds), status: call.status)
  }

  private struct SignedOut: Encodable {
    let signedOut = true
  }

  @Sendable static func signOut(_ services: APIServices, _ call: APICall) async throws -> Response {
    try await services.store.endSession(call.token, by: call.principal)
    services.tokens.forget(call.token)
    return try call.answer(SignedOut())
  }

  private struct PasswordChange: Decodable {
    let password: Secret?
    let currentPassword: Secret?
  }

  private struct Changed: Encodable {
    let passwordSet: Bool
  }

  /// An administrator sets anybody's password. Everybody sets their own: with the present one, or the first one with all
  /// the rights that it will give.
  @Sendable static func setPassword(_ services: APIServices, _ call: APICall) async throws -> Response {
    let id: UserID = try call.identifier()
    let change = try call.decode(PasswordChange.self)
    let isOwn = id == call.principal.userID
    if !isOwn { try call.require(.manageUsers) }
    let user = try await services.store.user(id, for: call.principal)
    if let password = change.password { try PasswordRules.check(password, of: user.address, at: "/password") }
    if isOwn && user.passwordSet {
      guard let current = change.currentPassword else {
        throw Problem.invalid([
          FieldProblem("/currentPassword", "required", "is required to change one's own password")
        ])
      }
      let ticket = try await services.store.beginPasswordCheck(by: call.principal)
      let answer = try await services.passwords.check(current, against: ticket?.hash)
      guard ticket != nil, answer != .wrong else {
        if let ticket { try await services.store.failSignIn(ticket) }
        throw Problem.invalid([
          FieldProblem(
            "/currentPassword", "wrong",
            "is not the present password, or there were too many wrong ones; then wait some minutes")
        ])
      }
    } else if isOwn && !call.principal.role.covers(user.role) {
      // Else whoever has a weak token of a person could make themselves a strong one.
      throw MissingRight(right: .manageUsers)
    }
    var hash: Secret?
    if let password = change.password { hash = try await services.passwords.hash(password) }
    try await services.store.setPassword(hash, of: id, keeping: call.token, by: call.principal)
    return try call.answer(Changed(passwordSet: hash != nil))
  }
}
