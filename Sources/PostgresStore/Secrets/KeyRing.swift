import Crypto
import FoundationEssentials
import PostriderCore

/// The keys that encrypt passwords and tokens before they reach the database (AES-256-GCM).
///
/// Written as lines `id: base64 of 32 octets`; empty lines and lines that begin with `#` are skipped. The first key
/// encrypts, all of them decrypt, so a new key goes on top and an old one stays until everything is encrypted anew.
/// The ring comes from a file or the environment, never from the database.
public struct KeyRing: Sendable, CustomStringConvertible, CustomReflectable {
  /// Why a key ring's text is refused. Never holds key material.
  public enum FormatError: Error, Hashable, Sendable, CustomStringConvertible {
    /// There is no key.
    case empty
    /// This line is not `id: base64 of 32 octets`, counted from 1.
    case line(Int)
    /// Two lines have this id.
    case duplicate(id: String)

    /// The reason in words.
    public var description: String {
      switch self {
      case .empty: "the key ring holds no key; `postrider keys generate` makes one"
      case .line(let number): "line \(number) of the key ring is not `id: base64 of 32 octets`"
      case .duplicate(let id): "the key ring holds two keys with the id \(id)"
      }
    }
  }

  private struct Key: Sendable {
    var id: String
    var key: SymmetricKey
  }

  private let keys: [Key]

  /// Reads a ring; throws ``FormatError``.
  public init(_ text: Secret) throws(FormatError) {
    var keys: [Key] = []
    for (index, line) in text.revealed.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline).enumerated()
    {
      let trimmed = line.trimmed
      if trimmed.isEmpty || trimmed.hasPrefix("#") { continue }
      let parts = trimmed.split(separator: ":", maxSplits: 1)
      guard parts.count == 2, let octets = Data(base64Encoded: parts[1].trimmed), octets.count == 32 else {
        throw .line(index + 1)
      }
      let id = parts[0].trimmed
      guard (1...64).contains(id.utf8.count), id.allSatisfy({ $0.isASCII && !$0.isWhitespace }) else {
        throw .line(index + 1)
      }
      if keys.contains(where: { $0.id == id }) { throw .duplicate(id: id) }
      keys.append(Key(id: id, key: SymmetricKey(data: octets)))
    }
    if keys.isEmpty { throw .empty }
    self.keys = keys
  }

  private init(keys: [Key]) { self.keys = keys }

  /// A ring with one new random key. `id` is 1…64 ASCII characters without spaces and colons; by default it is random
  /// too, so that a value met with another ring is of a missing key and does not look damaged.
  public static func generate(id: String? = nil) -> KeyRing {
    KeyRing(keys: [Key(id: id ?? randomID(), key: SymmetricKey(size: .bits256))])
  }

  private static func randomID() -> String {
    let digits = String(UInt32.random(in: .min ... .max), radix: 16)
    return "k" + String(repeating: "0", count: 8 - digits.count) + digits
  }

  /// This ring with a new random key on top, which encrypts from now on.
  public func adding(id: String) -> KeyRing { KeyRing(keys: KeyRing.generate(id: id).keys + keys) }

  /// The ring as it is written to a file.
  public var text: Secret {
    Secret(
      keys.map { key in "\(key.id): \(key.key.withUnsafeBytes { Data($0).base64EncodedString() })\n" }.joined())
  }

  /// The ids, the encrypting one first.
  public var ids: [String] { keys.map(\.id) }

  /// The ids only.
  public var description: String { "KeyRing(\(ids.joined(separator: ", ")))" }
  /// Empty, so that `dump` and crash reports show nothing.
  public var customMirror: Mirror { Mirror(self, children: [:]) }

  /// Encrypts a value for one place in the database: version 1, key id, nonce, ciphertext, tag.
  func seal(_ secret: Secret, for place: SealedPlace) throws -> [UInt8] {
    let key = keys[0]
    let header = [1, UInt8(key.id.utf8.count)] + Array(key.id.utf8)
    let box = try AES.GCM.seal(
      Data(secret.revealed.utf8), using: key.key, authenticating: Data(header + place.associatedData))
    return header + Array(box.nonce) + Array(box.ciphertext) + Array(box.tag)
  }

  /// The id of the key that encrypted a value; `nil` when it is not one of ours.
  static func keyID(of sealed: [UInt8]) -> String? {
    guard sealed.count > 2, sealed[0] == 1, sealed.count >= 2 + Int(sealed[1]) + 28 else { return nil }
    return String(decoding: sealed[2..<2 + Int(sealed[1])], as: UTF8.self)
  }

  /// Decrypts a value of one place. Throws ``StoreError/missingKey(id:)`` when its key is not in the ring, and
  /// ``StoreError/statement(sqlState:message:)`` when it was changed or moved from another place.
  func open(_ sealed: [UInt8], for place: SealedPlace) throws(StoreError) -> Secret {
    guard let id = Self.keyID(of: sealed) else { throw Self.damaged(place) }
    guard let key = keys.first(where: { $0.id == id }) else { throw .missingKey(id: id) }
    let body = 2 + Int(sealed[1])
    do {
      let box = try AES.GCM.SealedBox(
        nonce: AES.GCM.Nonce(data: sealed[body..<body + 12]), ciphertext: sealed[(body + 12)..<(sealed.count - 16)],
        tag: sealed[(sealed.count - 16)...])
      let plain = try AES.GCM.open(
        box, using: key.key, authenticating: Data(Array(sealed[..<body]) + place.associatedData))
      return Secret(String(decoding: plain, as: UTF8.self))
    } catch {
      throw Self.damaged(place)
    }
  }

  private static func damaged(_ place: SealedPlace) -> StoreError {
    .statement(
      sqlState: "XX001", message: "the secret in \(place.table).\(place.column) of row \(place.row) is damaged")
  }
}

/// Where an encrypted value stands. It is authenticated with the value, so a ciphertext copied to another row or
/// column does not open.
struct SealedPlace: Hashable, Sendable {
  var table: String
  var column: String
  var row: Int64

  var associatedData: [UInt8] { Array("\(table).\(column).\(row)".utf8) }
}

extension StringProtocol {
  /// Without white space at both ends.
  fileprivate var trimmed: String {
    var text = Substring(self)
    while let first = text.first, first.isWhitespace { text.removeFirst() }
    while let last = text.last, last.isWhitespace { text.removeLast() }
    return String(text)
  }
}
