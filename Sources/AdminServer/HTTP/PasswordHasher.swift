import Crypto
import CryptoExtras
import FoundationEssentials
import NIOCore
import NIOPosix
import PostriderCore
import Synchronization

/// What a password costs to check, as parameters of scrypt (RFC 7914).
struct PasswordCost: Hashable, Sendable {
  /// The binary logarithm of N, 4…20: 15 takes 32 MiB and about a tenth of a second.
  var logN = 15
  /// The block size r, 1…32.
  var blockSize = 8
  /// The parallelization p, 1…16.
  var parallelism = 1
}

/// Hashes and checks passwords on a thread of its own, one after the other: each takes its time and its memory, and no
/// number of guesses may take more of both.
final class PasswordHasher: Sendable {
  /// What a check found.
  enum Answer: Sendable {
    case wrong
    case right
    /// Right, but stored with other parameters than the present ones.
    case rightButOld
  }

  /// So many wait; more are told to come again.
  private static let maximumWaiting = 64
  private static let thread: NIOThreadPool = {
    let pool = NIOThreadPool(numberOfThreads: 1)
    pool.start()
    return pool
  }()

  private let cost: PasswordCost
  private let waiting = Mutex(0)
  /// What is checked where there is no account.
  private let nobody: PasswordHash

  init(cost: PasswordCost) {
    self.cost = cost
    nobody = PasswordHash(cost: cost, salt: PasswordHash.randomSalt(), key: [UInt8](repeating: 0, count: 32))
  }

  /// A new hash with a salt of its own, as a PHC string. Throws a ``Problem`` when too many wait.
  func hash(_ password: Secret) async throws -> Secret {
    try await run { [cost] in
      let salt = PasswordHash.randomSalt()
      return Secret(
        PasswordHash(cost: cost, salt: salt, key: try PasswordHash.key(password, salt, cost)).description)
    }
  }

  /// Whether it is the password of a stored hash; takes as long where there is none.
  func check(_ password: Secret, against stored: Secret?) async throws -> Answer {
    let known = stored.flatMap { PasswordHash($0.revealed) }
    return try await run { [cost, nobody] in
      let hash = known ?? nobody
      let key = try PasswordHash.key(password, hash.salt, hash.cost)
      guard known != nil, PasswordHash.isSame(key, hash.key) else { return .wrong }
      return hash.cost == cost ? .right : .rightButOld
    }
  }

  private func run<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
    let isFull = waiting.withLock { waiting in
      if waiting >= Self.maximumWaiting { return true }
      waiting += 1
      return false
    }
    if isFull { throw Problem.unavailable("busy", "Too many passwords are being checked at the moment.") }
    defer { waiting.withLock { $0 -= 1 } }
    return try await Self.thread.runIfActive(body)
  }
}

/// A stored password: `$scrypt$ln=15,r=8,p=1$<salt>$<key>`, both in base64 without padding.
struct PasswordHash: Hashable, Sendable, CustomStringConvertible {
  var cost: PasswordCost
  var salt: [UInt8]
  var key: [UInt8]

  init(cost: PasswordCost, salt: [UInt8], key: [UInt8]) {
    self.cost = cost
    self.salt = salt
    self.key = key
  }

  /// Reads the text form; `nil` for any other, and for parameters out of range.
  init?(_ text: String) {
    let parts = text.split(separator: "$", omittingEmptySubsequences: false)
    guard parts.count == 5, parts[0].isEmpty, parts[1] == "scrypt" else { return nil }
    let numbers = parts[2].split(separator: ",")
    func number(_ index: Int, _ name: String, _ range: ClosedRange<Int>) -> Int? {
      guard numbers.count == 3, numbers[index].hasPrefix(name), let number = Int(numbers[index].dropFirst(name.count)),
        range.contains(number)
      else { return nil }
      return number
    }
    guard let logN = number(0, "ln=", 4...20), let blockSize = number(1, "r=", 1...32),
      let parallelism = number(2, "p=", 1...16), let salt = Self.octets(parts[3]), let key = Self.octets(parts[4]),
      salt.count >= 16, key.count == 32
    else { return nil }
    self.init(cost: PasswordCost(logN: logN, blockSize: blockSize, parallelism: parallelism), salt: salt, key: key)
  }

  var description: String {
    "$scrypt$ln=\(cost.logN),r=\(cost.blockSize),p=\(cost.parallelism)$\(Self.text(salt))$\(Self.text(key))"
  }

  /// Derives the key of a password. Throws what the library throws for parameters that it does not take.
  static func key(_ password: Secret, _ salt: [UInt8], _ cost: PasswordCost) throws -> [UInt8] {
    let key = try KDF.Scrypt.deriveKey(
      from: Array(password.revealed.utf8), salt: salt, outputByteCount: 32, rounds: 1 << cost.logN,
      blockSize: cost.blockSize,
      parallelism: cost.parallelism)
    return key.withUnsafeBytes { Array($0) }
  }

  static func randomSalt() -> [UInt8] { SymmetricKey(size: .bits128).withUnsafeBytes { Array($0) } }

  /// Compares in a time that does not tell where the two differ.
  static func isSame(_ a: [UInt8], _ b: [UInt8]) -> Bool {
    a.count == b.count && zip(a, b).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) } == 0
  }

  private static func text(_ octets: [UInt8]) -> String {
    var text = Data(octets).base64EncodedString()
    while text.hasSuffix("=") { text.removeLast() }
    return text
  }

  private static func octets(_ text: Substring) -> [UInt8]? {
    let padding = String(repeating: "=", count: (4 - text.utf8.count % 4) % 4)
    return Data(base64Encoded: text + padding).map { [UInt8]($0) }
  }
}
