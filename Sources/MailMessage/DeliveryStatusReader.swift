import CGMime
import PostriderCore

/// Reads delivery status notifications (RFC 3464, RFC 6533): who was reported on, and about which message.
enum DeliveryStatusReader {
  private static let maximumOctets: Int64 = 262_144
  private static let maximumRecipients = 500
  private static let maximumChildren: Int32 = 20

  /// What a message reports; `nil` when it is no delivery status notification.
  static func notification(_ message: UnsafeMutablePointer<GMimeMessage>) -> DeliveryNotification? {
    guard let root = g_mime_message_get_mime_part(message), isType(root, "multipart", "report"),
      let type = g_mime_object_get_content_type(root)
    else { return nil }
    let kind = g_mime_content_type_get_parameter(type, "report-type").map { String(cString: $0).lowercased() }
    let parts = children(root)
    let status = parts.first {
      isType($0, "message", "delivery-status") || isType($0, "message", "global-delivery-status")
    }
    guard kind == "delivery-status" || kind == nil && status != nil else { return nil }
    return DeliveryNotification(
      messageID: parts.lazy.compactMap(originalMessageID).first,
      recipients: status.flatMap(text).map { recipients($0) } ?? [])
  }

  // MARK: The message it is about

  private static func originalMessageID(_ part: UnsafeMutablePointer<GMimeObject>) -> String? {
    if let nested = postrider_as_message_part(part), let message = g_mime_message_part_get_message(nested) {
      return EnvelopeReader(message).envelope().messageID
    }
    guard isType(part, "text", "rfc822-headers") || isType(part, "message", "global-headers"), let header = text(part)
    else { return nil }
    // Octets in memory can always be read.
    return (try? MessageReader.parse(Array((header + "\n\n").utf8)))?.envelope.messageID
  }

  // MARK: The recipients

  /// A block of fields for each recipient, after the one for the message (RFC 3464 section 2.1).
  private static func recipients(_ text: String) -> [DeliveryNotification.Recipient] {
    var blocks: [[String: String]] = [[:]]
    var last: String?
    for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
      if line.allSatisfy(\.isWhitespace) {
        if blocks.last?.isEmpty == false, blocks.count <= maximumRecipients { blocks.append([:]) }
        last = nil
      } else if line.first == " " || line.first == "\t" {
        if let last { blocks[blocks.count - 1][last]? += " " + line.drop(while: \.isWhitespace) }
      } else if let colon = line.firstIndex(of: ":") {
        let name = line[..<colon].lowercased()
        last = name
        blocks[blocks.count - 1][name] = String(line[line.index(after: colon)...].drop(while: \.isWhitespace))
      }
    }
    return blocks.compactMap(recipient)
  }

  private static func recipient(_ fields: [String: String]) -> DeliveryNotification.Recipient? {
    guard let word = fields["action"]?.prefix(while: { $0.isLetter }).lowercased(),
      let action = DeliveryAction(rawValue: word)
    else { return nil }
    let addresses = ["original-recipient", "final-recipient"].compactMap { fields[$0].flatMap(address) }
    if addresses.isEmpty { return nil }
    let diagnostic = fields["diagnostic-code"].map { TextSanitizer.line(typed($0), maximum: 500) }
    return DeliveryNotification.Recipient(
      addresses: addresses,
      report: DeliveryReport(
        action: action, status: fields["status"].flatMap(status), diagnostic: diagnostic == "" ? nil : diagnostic))
  }

  /// What follows the type: `rfc822; b@example.org` (RFC 3464 section 2.1.2).
  private static func typed(_ value: String) -> String {
    guard let semicolon = value.firstIndex(of: ";") else { return value }
    return String(value[value.index(after: semicolon)...])
  }

  private static func address(_ value: String) -> String? {
    let text = MessageIDRules.bare(TextSanitizer.word(typed(value), maximum: 320)).lowercased()
    return text.contains("@") ? text : nil
  }

  /// `class.subject.detail` (RFC 3463 section 2).
  private static func status(_ value: String) -> String? {
    let word = value.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
    let parts = word.split(separator: ".", omittingEmptySubsequences: false)
    return parts.count == 3 && parts.allSatisfy { (1...3).contains($0.count) } ? String(word) : nil
  }

  // MARK: Parts

  private static func children(_ object: UnsafeMutablePointer<GMimeObject>) -> [UnsafeMutablePointer<GMimeObject>] {
    guard let multipart = postrider_as_multipart(object) else { return [] }
    return (0..<min(g_mime_multipart_get_count(multipart), maximumChildren)).compactMap {
      g_mime_multipart_get_part(multipart, $0)
    }
  }

  private static func text(_ object: UnsafeMutablePointer<GMimeObject>) -> String? {
    guard let part = postrider_as_part(object) else { return nil }
    let content = ContentReader.read(part, limit: maximumOctets, stopsAtLimit: true)
    return TextSanitizer.body(content.bytes, maximum: Int(maximumOctets))
  }

  private static func isType(_ object: UnsafeMutablePointer<GMimeObject>, _ type: String, _ subtype: String) -> Bool {
    guard let found = g_mime_object_get_content_type(object) else { return false }
    return g_mime_content_type_is_type(found, type, subtype) != 0
  }
}
