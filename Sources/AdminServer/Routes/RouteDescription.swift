/// Who may use a route.
public enum RouteAccess: Hashable, Sendable {
  /// Anybody, without a token.
  case open
  /// Everybody with a token.
  case signedIn
  /// People whose role has this right.
  case right(Right)
}

/// A route as data: for documentation, for tests, and for what is generated from it.
public struct RouteDescription: Hashable, Sendable {
  /// `GET`, `POST`, `PATCH` or `DELETE`.
  public let method: String
  /// The whole path, with names in braces: `/api/v1/mailboxes/{id}`.
  public let path: String
  /// Who may use it.
  public let access: RouteAccess
  /// The parameters of the query; others are refused.
  public let query: [QueryParameter]
  /// What the body must look like; `nil` for none.
  public let body: JSONShape?
  /// The media type of a file that may be the body instead (`message/rfc822`), or must be where ``body`` is `nil`; `nil`
  /// where there is none.
  public var messageType: String?
  /// The parameters of the query when the body is such a file.
  public var messageQuery: [QueryParameter]?
  /// Whether the body may be as large as files make it.
  public var takesFiles = false
  /// Whether the header `Idempotency-Key` makes it safe to send the request again.
  public var takesIdempotencyKey = false
  /// The status of success.
  public let status: Int
  /// One sentence.
  public let summary: String
  /// What success answers; every route says it, a test looks.
  public var answer: AnswerShape?
  /// Whether a 503 has the body of success, which says what fails.
  public var showsFailures = false
}
