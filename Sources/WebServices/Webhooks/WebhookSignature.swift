import Crypto
import FoundationEssentials
import PostriderCore

/// Signs what is delivered, as the Standard Webhooks specification says: `webhook-id`, `webhook-timestamp` and
/// `webhook-signature: v1,` with base64 of HMAC-SHA-256 over `id.timestamp.body`.
///
/// The time is part of what is signed, so a receiver can refuse what was recorded and sent again; the id is the same in
/// every attempt, so it can tell repetitions.
public enum WebhookSignature {
  private static let prefix = "whsec_"

  /// A new secret: `whsec_` and base64 of 32 random octets.
  public static func makeSecret() -> Secret {
    Secret(prefix + SymmetricKey(size: .bits256).withUnsafeBytes { Data($0).base64EncodedString() })
  }

  /// The value of `webhook-signature`.
  public static func sign(id: String, timestamp: Int64, body: [UInt8], with secret: Secret) -> String {
    let text = secret.revealed
    let octets = Data(base64Encoded: text.hasPrefix(prefix) ? String(text.dropFirst(prefix.count)) : text)
    let code = HMAC<SHA256>.authenticationCode(
      for: Data("\(id).\(timestamp).".utf8) + Data(body), using: SymmetricKey(data: octets ?? Data(text.utf8)))
    return "v1," + Data(code).base64EncodedString()
  }

  /// Whether one of the signatures of a header is right and the time is within `tolerance` of now: what a receiver does.
  public static func isValid(
    _ header: String, id: String, timestamp: Int64, body: [UInt8], secret: Secret, at now: Date = Date(),
    tolerance: TimeInterval = 300
  ) -> Bool {
    guard abs(now.timeIntervalSince1970 - Double(timestamp)) <= tolerance else { return false }
    let expected = Array(sign(id: id, timestamp: timestamp, body: body, with: secret).utf8)
    return header.split(separator: " ").contains { candidate in
      let candidate = Array(candidate.utf8)
      // In the same time whatever differs.
      return candidate.count == expected.count && zip(candidate, expected).reduce(UInt8(0)) { $0 | ($1.0 ^ $1.1) } == 0
    }
  }
}
