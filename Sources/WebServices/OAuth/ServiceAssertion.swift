import Crypto
import CryptoExtras
import FoundationEssentials
import PostriderCore

/// The signed statement with which a service account asks for a token (RFC 7523; JWT of RFC 7519, RS256 of RFC 7518).
struct ServiceAssertion: Sendable {
  /// The service account.
  let issuer: String
  /// The mailbox it speaks for.
  let subject: String
  /// The token endpoint.
  let audience: String
  /// What is asked for.
  let scopes: [String]
  /// Google takes at most an hour.
  var life: TimeInterval = 3_600
  /// A clock that is a little ahead must not make a statement of the future.
  var skew: TimeInterval = 30

  private struct Header: Encodable {
    let alg = "RS256"
    let typ = "JWT"
  }

  private struct Claims: Encodable {
    let iss: String
    let sub: String
    let aud: String
    let scope: String
    let iat: Int
    let exp: Int
  }

  /// Signs with a private key in PEM; throws `oauth.client` when the key cannot be used.
  func signed(with key: Secret, at now: Date = Date()) throws -> Secret {
    let issuedAt = Int(now.timeIntervalSince1970 - skew)
    let claims = Claims(
      iss: issuer, sub: subject, aud: audience, scope: scopes.joined(separator: " "), iat: issuedAt,
      exp: issuedAt + Int(life))
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    let text = "\(try encoder.encode(Header()).base64URL).\(try encoder.encode(claims).base64URL)"
    do {
      let key = try _RSA.Signing.PrivateKey(pemRepresentation: key.revealed)
      let signature = try key.signature(for: SHA256.hash(data: Data(text.utf8)), padding: .insecurePKCS1v1_5)
      return Secret("\(text).\(signature.rawRepresentation.base64URL)")
    } catch {
      throw Failure(
        .oauthClient, context: "the private key cannot be used: it must be an RSA key of 2,048 bits or more")
    }
  }
}

extension Data {
  /// base64url without padding (RFC 4648 section 5).
  var base64URL: String {
    base64EncodedString().replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
  }
}
