import FoundationEssentials
import PostriderCore
import Synchronization

/// The versions of everything that a mailbox's settings are made of.
struct SettingsVersion: Hashable, Sendable {
  var mailbox: Int64
  var profile: ProfileID
  var profileVersion: Int64
  var organization: Int64
}

/// The settings of a mailbox as they are kept in memory: passwords stay encrypted until a session needs them.
struct CachedSettings: Sendable {
  /// Without credentials.
  var settings: SessionSettings
  var incoming: SealedCredentials?
  var outgoing: SealedCredentials?
}

/// Credentials whose password is still encrypted.
struct SealedCredentials: Sendable {
  enum Proof: Sendable {
    case password([UInt8], SealedPlace)
    case workerIdentity
    /// There is none, for this reason.
    case none(FailureCode)
  }

  var userName: String
  var proof: Proof
  var authorizationIdentity: String?
}

/// Keeps the settings of the mailboxes used last, at most `capacity`. An entry counts only with its exact versions, so
/// an edit is seen by the next session.
final class SettingsCache: Sendable {
  private struct Entry {
    var version: SettingsVersion
    var value: CachedSettings
    /// The clock hand gives a used entry a second chance.
    var used: Bool
  }

  private struct State {
    var entries: [MailboxID: Entry] = [:]
    var ring: [MailboxID] = []
    var hand = 0
  }

  private let capacity: Int
  private let state = Mutex(State())

  init(capacity: Int) { self.capacity = max(1, capacity) }

  /// The settings of a mailbox in exactly this version.
  func value(_ mailbox: MailboxID, version: SettingsVersion) -> CachedSettings? {
    state.withLock { state in
      guard let entry = state.entries[mailbox], entry.version == version else { return nil }
      state.entries[mailbox]?.used = true
      return entry.value
    }
  }

  /// The polling interval of a mailbox as it was read last, in whatever version.
  func pollingInterval(of mailbox: MailboxID) -> Duration? {
    state.withLock { $0.entries[mailbox]?.value.settings.pollingInterval }
  }

  /// Keeps settings, in the place of one not used lately when the cache is full.
  func insert(_ value: CachedSettings, for mailbox: MailboxID, version: SettingsVersion) {
    state.withLock { state in
      let isNew = state.entries.updateValue(Entry(version: version, value: value, used: false), forKey: mailbox) == nil
      guard isNew else { return }
      if state.ring.count < capacity {
        state.ring.append(mailbox)
        return
      }
      while state.entries[state.ring[state.hand]]?.used == true {
        state.entries[state.ring[state.hand]]?.used = false
        state.hand = (state.hand + 1) % capacity
      }
      state.entries[state.ring[state.hand]] = nil
      state.ring[state.hand] = mailbox
      state.hand = (state.hand + 1) % capacity
    }
  }

  /// How many mailboxes are kept.
  var count: Int { state.withLock { $0.entries.count } }
}
