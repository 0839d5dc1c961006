import Crypto
import Foundation

/// The server's side of SCRAM (RFC 5802), written from the RFC: a second opinion on what the client says.
struct SCRAMServer<Hash: HashFunction>: Sendable {
  var password: String
  var salt: [UInt8]
  var iterations = 4_096
  var nonce = "server-part-of-the-nonce"

  /// `r=…,s=…,i=…` after a client's first message, and what both sides sign of the two.
  func first(_ clientFirst: String) -> String {
    let clientNonce = clientFirst.split(separator: ",", omittingEmptySubsequences: false).last?.dropFirst(2) ?? ""
    return "r=\(clientNonce)\(nonce),s=\(Data(salt).base64EncodedString()),i=\(iterations)"
  }

  /// Whether the client's last message proves that it knows the password, and the server's answer.
  func final(clientFirst: String, serverFirst: String, clientFinal: String) -> (isProven: Bool, message: String) {
    let parts = clientFinal.components(separatedBy: ",p=")
    let bare = clientFirst.split(separator: ",", maxSplits: 2, omittingEmptySubsequences: false).last ?? ""
    let authMessage = Array("\(bare),\(serverFirst),\(parts[0])".utf8)
    let salted = hash(of: password)
    let clientKey = hmac(salted, Array("Client Key".utf8))
    let storedKey = Array(Hash.hash(data: clientKey))
    let signature = hmac(storedKey, authMessage)
    let proof = zip(clientKey, signature).map { $0 ^ $1 }
    let serverSignature = hmac(hmac(salted, Array("Server Key".utf8)), authMessage)
    let binding = "c=\(Data(clientFirst.dropLast(bare.count).utf8).base64EncodedString())"
    let isProven =
      parts.count == 2 && parts[1] == Data(proof).base64EncodedString() && parts[0].hasPrefix(binding + ",r=")
    return (isProven, "v=" + Data(serverSignature).base64EncodedString())
  }

  private func hash(of password: String) -> [UInt8] {
    var block = hmac(Array(password.utf8), salt + [0, 0, 0, 1])
    var result = block
    for _ in 1..<iterations {
      block = hmac(Array(password.utf8), block)
      for index in result.indices { result[index] ^= block[index] }
    }
    return result
  }

  private func hmac(_ key: [UInt8], _ message: [UInt8]) -> [UInt8] {
    Array(HMAC<Hash>.authenticationCode(for: message, using: SymmetricKey(data: key)))
  }
}
