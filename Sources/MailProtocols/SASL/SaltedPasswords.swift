import Crypto
import FoundationEssentials
import PostriderCore
import Synchronization

/// What SCRAM makes of a password with much hashing, kept for the next login of the same account (RFC 5802 section 5.1
/// suggests it): a poll costs a few microseconds then instead of milliseconds of a processor.
///
/// Only of logins that passed and whose server proved itself, so nobody can fill it. It opens mailboxes as passwords do;
/// it lives in the memory of a process that holds the keys of all passwords anyway, and nowhere else.
final class SaltedPasswords: Sendable {
  /// Whose it is. One entry each: servers that make a new salt for each login replace their own only.
  struct Place: Hashable, Sendable {
    var mechanism: String
    var host: String
    var userName: String
  }

  /// What an entry is good for, without the password in it.
  struct Fingerprint: Hashable, Sendable {
    fileprivate let octets: [UInt8]
  }

  private struct Entry {
    var fingerprint: Fingerprint
    var salted: Secret
  }

  /// Those of this process.
  static let shared = SaltedPasswords(capacity: 100_000)

  private let capacity: Int
  private let key = SymmetricKey(size: .bits256)
  private let entries = Mutex<[Place: Entry]>([:])

  init(capacity: Int) { self.capacity = capacity }

  /// Names a password with the salt and rounds of a server.
  func fingerprint(_ password: Secret, salt: [UInt8], iterations: Int) -> Fingerprint {
    var hmac = HMAC<SHA256>(key: key)
    hmac.update(data: Data(password.revealed.utf8))
    hmac.update(data: Data([0]))
    hmac.update(data: Data(salt))
    hmac.update(data: Data("\0\(iterations)".utf8))
    return Fingerprint(octets: Array(hmac.finalize()))
  }

  /// The salted password in hexadecimal; `nil` when password, salt or rounds are others.
  func value(_ place: Place, _ fingerprint: Fingerprint) -> Secret? {
    entries.withLock { entries in
      guard let entry = entries[place], entry.fingerprint == fingerprint else { return nil }
      return entry.salted
    }
  }

  /// Keeps one, in the place of any other when the room is full.
  func keep(_ salted: Secret, _ place: Place, _ fingerprint: Fingerprint) {
    entries.withLock { entries in
      if entries[place] == nil, entries.count >= capacity, let any = entries.keys.first { entries[any] = nil }
      entries[place] = Entry(fingerprint: fingerprint, salted: salted)
    }
  }

  /// How many are kept.
  var count: Int { entries.withLock { $0.count } }
}
