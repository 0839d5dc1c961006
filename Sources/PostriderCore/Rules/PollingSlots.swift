import FoundationEssentials

/// The fixed slots at which a mailbox is polled.
///
/// Slots lie at phase φ + k · interval, where φ is a hash of the mailbox's number modulo the interval: a million
/// mailboxes spread evenly, a restart keeps the schedule, and a late slot collapses into one.
public struct PollingSlots: Hashable, Sendable {
  /// Milliseconds from slot to slot, 1 and up.
  public let intervalMilliseconds: Int64
  /// Milliseconds after a multiple of the interval, 0..<interval.
  public let phaseMilliseconds: Int64

  /// The slots of a mailbox.
  public init(mailbox: MailboxID, interval: Duration) {
    let milliseconds = interval.components.seconds * 1_000 + interval.components.attoseconds / 1_000_000_000_000_000
    precondition(milliseconds > 0, "a polling interval is positive")
    intervalMilliseconds = milliseconds
    phaseMilliseconds = Int64(Self.spread(UInt64(bitPattern: mailbox.value)) % UInt64(milliseconds))
  }

  /// The first slot after a moment.
  public func next(after moment: Date) -> Date { slot(number(at: moment) + 1) }

  /// The last slot before a moment, or the slot at which it is.
  public func last(before moment: Date) -> Date { slot(number(at: moment)) }

  private func number(at moment: Date) -> Int64 {
    let now = Int64((moment.timeIntervalSince1970 * 1_000).rounded(.down))
    let slots = (now - phaseMilliseconds) / intervalMilliseconds
    return (now - phaseMilliseconds) % intervalMilliseconds < 0 ? slots - 1 : slots
  }

  private func slot(_ number: Int64) -> Date {
    Date(timeIntervalSince1970: Double(phaseMilliseconds + number * intervalMilliseconds) / 1_000)
  }

  /// The finalizer of splitmix64: neighbouring numbers land far apart.
  static func spread(_ number: UInt64) -> UInt64 {
    var z = number &+ 0x9E37_79B9_7F4A_7C15
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}
