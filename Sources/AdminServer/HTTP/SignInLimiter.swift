import Synchronization

/// Counts attempts to sign in for each client's address: a bucket that fills by itself.
///
/// Each process counts by itself, as what really stops guessing is the lock of the account, which all of them share.
final class SignInLimiter: Sendable {
  /// How often a client may try.
  struct Limit: Hashable, Sendable {
    /// So many attempts at once.
    var burst = 20
    /// How long until one more is allowed.
    var refill = Duration.seconds(6)
  }

  /// More addresses than this are not told apart: those whose bucket is fullest are forgotten.
  private static let maximumAddresses = 10_000

  private let limit: Limit
  /// When each address' bucket is full again; what is in the past is full.
  private let fullAt = Mutex<[String: ContinuousClock.Instant]>([:])

  init(_ limit: Limit) { self.limit = limit }

  /// Counts an attempt; seconds to wait when it is refused.
  func refusal(of address: String, now: ContinuousClock.Instant = .now) -> Int? {
    fullAt.withLock { fullAt in
      let full = max(fullAt[address] ?? now, now)
      let emptyAfter = limit.refill * limit.burst
      let next = full + limit.refill
      if next - now > emptyAfter { return max(1, Int((next - now - emptyAfter).components.seconds) + 1) }
      if fullAt.count >= Self.maximumAddresses && fullAt[address] == nil {
        fullAt = fullAt.filter { $0.value > now }
        if fullAt.count >= Self.maximumAddresses, let least = fullAt.min(by: { $0.value < $1.value }) {
          fullAt[least.key] = nil
        }
      }
      fullAt[address] = next
      return nil
    }
  }
}
