/// An answer that is kept for a request that may come again.
public struct KeptAnswer: Hashable, Sendable {
  /// The HTTP status.
  public var status: Int
  /// The field `Location` of the answer.
  public var location: String?
  /// The body, JSON.
  public var body: String

  /// Describes an answer.
  public init(status: Int, location: String?, body: String) {
    self.status = status
    self.location = location
    self.body = body
  }
}

/// What is known of an idempotency key.
public enum KeyClaim: Hashable, Sendable {
  /// It is new, and the caller's until it is answered or given back.
  case new
  /// The same request was answered.
  case answered(KeptAnswer)
  /// The same request is under way.
  case busy
  /// It was used for another request.
  case other
}

/// Keeps answers to creating requests for a day, so that a client that does not know whether its request arrived can send
/// it again. Keys are an organization's own. Calls throw ``StoreError``.
public protocol IdempotencyStore: Sendable {
  /// Claims a key for a request with this hash (SHA-256). A claim that is neither answered nor given back ends after
  /// `duration`.
  func claimKey(
    _ key: String, requestHash: [UInt8], for duration: Duration, by principal: Principal
  ) async throws -> KeyClaim
  /// Keeps the answer.
  func keepAnswer(_ answer: KeptAnswer, under key: String, by principal: Principal) async throws
  /// Gives a key back whose request was refused: nothing was done.
  func releaseKey(_ key: String, by principal: Principal) async throws
}
