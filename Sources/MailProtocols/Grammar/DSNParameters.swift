import PostriderCore

/// The parameters by which a client asks for delivery reports (RFC 3461 section 4).
struct DSNParameters: Hashable, Sendable {
  let request: DSNRequest
  /// Names the transaction in reports; printable ASCII.
  let envelopeID: String?

  /// ENVID has at most so many characters (RFC 3461 section 4.4), ORCPT so many (section 4.2).
  private static let envelopeLimit = 100
  private static let originalRecipientLimit = 500

  /// For MAIL, a blank before each: ` RET=HDRS ENVID=QQ314159`.
  var mail: String {
    var text = ""
    switch request.returns {
    case .full?: text += " RET=FULL"
    case .headers?: text += " RET=HDRS"
    case nil: break
    }
    if let envelopeID {
      let encoded = Self.xtext(envelopeID)
      if !encoded.isEmpty, encoded.utf8.count <= Self.envelopeLimit { text += " ENVID=\(encoded)" }
    }
    return text
  }

  /// For RCPT: ` NOTIFY=FAILURE,DELAY ORCPT=rfc822;b@example.org`.
  ///
  /// An address beyond ASCII has no form of the type rfc822, so its report names what the servers make of it.
  func recipient(_ address: String) -> String {
    var text = ""
    if let notify = request.notify, !notify.isEmpty {
      text += " NOTIFY=" + notify.map { $0.rawValue.uppercased() }.joined(separator: ",")
    }
    let original = "rfc822;" + Self.xtext(address)
    if address.utf8.allSatisfy({ $0 < 0x80 }), original.utf8.count <= Self.originalRecipientLimit {
      text += " ORCPT=\(original)"
    }
    return text
  }

  /// `xchar` as it is, everything else as `+` and two upper case hexadecimal digits (RFC 3461 section 4).
  static func xtext(_ text: String) -> String {
    var encoded = ""
    for octet in text.utf8 {
      if (0x21...0x7E).contains(octet), octet != UInt8(ascii: "+"), octet != UInt8(ascii: "=") {
        encoded.unicodeScalars.append(Unicode.Scalar(octet))
      } else {
        let digits = String(octet, radix: 16, uppercase: true)
        encoded += "+" + (digits.count == 1 ? "0" : "") + digits
      }
    }
    return encoded
  }
}
