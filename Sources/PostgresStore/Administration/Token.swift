import Crypto
import FoundationEssentials
import PostriderCore

/// A bearer token: 256 random bits behind a prefix that secret scanners can find. Only its hash is stored.
enum Token {
  static func generate() -> Secret {
    let key = SymmetricKey(size: .bits256).withUnsafeBytes { Data($0) }
    return Secret("postrider_" + key.base64URLText)
  }

  static func hash(_ token: Secret) -> [UInt8] { Array(SHA256.hash(data: Data(token.revealed.utf8))) }
}
