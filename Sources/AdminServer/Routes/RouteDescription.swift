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
  public let query: [String]
  /// What the body must look like; `nil` for none.
  public let body: JSONShape?
  /// The parameters of the query when the body is a message (`message/rfc822`) instead; `nil` where it may be none.
  public var messageQuery: [String]?
  /// The status of success.
  public let status: Int
  /// One sentence.
  public let summary: String
}
