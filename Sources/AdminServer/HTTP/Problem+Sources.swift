import HTTPTypes
import Hummingbird
import Logging
import PostriderCore
import Telemetry

extension Problem {
  static var noSuchRoute: Problem { Problem(.notFound, "not-found", "There is no such path in this API.") }

  static func methodNotAllowed(_ allowed: [HTTPRequest.Method]) -> Problem {
    var methods = Set(allowed.map(\.rawValue))
    if methods.contains("GET") { methods.insert("HEAD") }
    let list = methods.sorted().joined(separator: ", ")
    return Problem(
      .methodNotAllowed, "method-not-allowed", "This path answers \(list).",
      headers: [Header(name: .allow, value: list)])
  }

  static var tokenMissing: Problem {
    Problem(
      .unauthorized, "unauthorized", "Send a token: Authorization: Bearer <token>.",
      headers: [Header(name: .wwwAuthenticate, value: "Bearer realm=\"postrider\"")])
  }

  static var tokenUnknown: Problem {
    Problem(
      .unauthorized, "unauthorized", "The token is unknown, revoked or expired.",
      headers: [Header(name: .wwwAuthenticate, value: "Bearer realm=\"postrider\", error=\"invalid_token\"")])
  }

  static func missingRight(_ right: Right, _ role: Role) -> Problem {
    Problem(.forbidden, "forbidden", "The role \(role.rawValue) does not have the right \(right.rawValue).")
  }

  static var insecureChannel: Problem {
    Problem(
      .forbidden, "insecure-channel",
      "Passwords and other secrets are only accepted over TLS or a Unix socket, unless the deployment property "
        + "allowCredentialsEntryViaNonSecureChannels is 1.")
  }

  /// The same for an unknown organization or address, a wrong password and a locked account: nobody learns which.
  static var signInRefused: Problem {
    Problem(
      .unauthorized, "sign-in-refused",
      "The organization, the address or the password is wrong, or there were too many wrong passwords; then even the "
        + "right one is refused for some minutes.")
  }

  static func tooManySignIns(retryAfterSeconds: Int) -> Problem {
    Problem(
      .tooManyRequests, "too-many-requests", "There were too many attempts to sign in from this address; wait.",
      headers: [Header(name: .retryAfter, value: String(retryAfterSeconds))])
  }

  static func malformedJSON(_ reason: String) -> Problem {
    Problem(.badRequest, "malformed-json", "The body is not JSON: \(reason).")
  }

  static func tooLarge(_ maximum: Int64) -> Problem {
    // The rest of such a body is not read, so the connection is of no more use.
    Problem(
      .contentTooLarge, "too-large", "The body must have at most \(maximum) octets.",
      headers: [Header(name: .connection, value: "close")])
  }

  static var bodyTooSlow: Problem {
    Problem(
      .requestTimeout, "timeout", "The body did not arrive in time.",
      headers: [Header(name: .connection, value: "close")])
  }

  static func unsupportedMediaType(_ types: [String]) -> Problem {
    Problem(
      .unsupportedMediaType, "unsupported-media-type", "Send the body as \(types.joined(separator: " or ")).")
  }

  static func invalid(_ problems: [FieldProblem]) -> Problem {
    let words = problems.count == 1 ? "One value is not allowed" : "\(problems.count) values are not allowed"
    let first = problems.first.map { ": \($0)" } ?? ""
    return Problem(.unprocessableContent, "invalid", words + first + ".", errors: problems)
  }

  static func unavailable(_ code: String, _ detail: String, retryAfterSeconds: Int = 2) -> Problem {
    Problem(
      .serviceUnavailable, code, detail, headers: [Header(name: .retryAfter, value: String(retryAfterSeconds))])
  }

  /// The one place that sorts errors. Unexpected ones are logged and answered without a word about the inside.
  static func from(_ error: any Error, requestID: String, logger: Logger) -> Problem {
    switch error {
    case let problem as Problem:
      return problem
    case let error as StoreError:
      return from(error, requestID, logger)
    case let error as JobQueueError:
      logger.warning("The queue could not answer a request", metadata: [LogKeys.error: "\(error)"])
      if case .notOpenYet(let milliseconds) = error {
        return unavailable("unavailable", "The queue opens in a moment.", retryAfterSeconds: milliseconds / 1_000 + 1)
      }
      return unavailable("unavailable", "Redis cannot be reached or does not hold the queue at the moment.")
    case is TimeLimitExceeded:
      logger.warning("A request took too long", metadata: [LogKeys.error: "\(error)"])
      return unavailable("timeout", "The request took too long; it may or may not have been carried out.")
    case is CancellationError:
      return unavailable("unavailable", "The server is stopping.")
    default:
      return unexpected(error, requestID, logger)
    }
  }

  private static func from(_ error: StoreError, _ requestID: String, _ logger: Logger) -> Problem {
    switch error {
    case .unavailable:
      logger.warning("PostgreSQL could not answer a request", metadata: [LogKeys.error: "\(error)"])
      return unavailable("unavailable", "PostgreSQL cannot be reached at the moment.")
    case .notFound(let what): return Problem(.notFound, "not-found", "There is no such \(what).")
    case .conflict(let code, let message): return Problem(.conflict, code, message)
    case .invalid(let problems): return invalid(problems)
    case .stale: return Problem(.conflict, "stale", "It was changed by somebody else in the meantime; read it again.")
    case .schema(let reason):
      logger.error("The database's schema does not fit", metadata: [LogKeys.error: "\(error)"])
      return unavailable("schema", reason, retryAfterSeconds: 10)
    case .missingKey(let id):
      logger.error("An encryption key is missing", metadata: [LogKeys.error: "\(error)"])
      return Problem(
        .internalServerError, "missing-key", "The encryption key \(id) is not in the key ring of this server.")
    case .statement: return unexpected(error, requestID, logger)
    }
  }

  private static func unexpected(_ error: any Error, _ requestID: String, _ logger: Logger) -> Problem {
    logger.error("A request failed unexpectedly", metadata: [LogKeys.error: "\(error)"])
    var problem = Problem(
      .internalServerError, "internal", "Postrider met an error of its own. The log has it under request \(requestID).")
    problem.requestID = requestID
    return problem
  }
}
