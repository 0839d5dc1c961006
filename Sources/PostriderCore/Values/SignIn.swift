import FoundationEssentials

/// Somebody who asks to be let in, with what their password is checked against. The attempt is counted as a wrong one
/// until ``PeopleStore/completeSignIn(_:life:rehashed:)`` takes that back.
public struct SignInTicket: Hashable, Sendable {
  /// Who it would be.
  public var principal: Principal
  /// What is stored of the password; never shown.
  public var hash: Secret

  /// Describes an attempt.
  public init(principal: Principal, hash: Secret) {
    self.principal = principal
    self.hash = hash
  }
}

/// How long a session lasts.
public struct SessionLife: Hashable, Sendable {
  /// From signing in, whatever happens.
  public var absolute: Duration
  /// From the last request.
  public var idle: Duration

  /// Describes a life; 12 hours, 30 minutes without a request, unless said otherwise.
  public init(absolute: Duration = .seconds(12 * 3_600), idle: Duration = .seconds(1_800)) {
    self.absolute = absolute
    self.idle = idle
  }
}

/// A session that begins. Its token is shown this once.
public struct StartedSession: Hashable, Sendable {
  /// The bearer token.
  public var token: Secret
  /// Who signed in.
  public var principal: Principal
  /// When it ends at the latest.
  public var expiresAt: Date

  /// Describes a session.
  public init(token: Secret, principal: Principal, expiresAt: Date) {
    self.token = token
    self.principal = principal
    self.expiresAt = expiresAt
  }
}
