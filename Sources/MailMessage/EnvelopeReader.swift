import CGMime
import FoundationEssentials
import PostriderCore

/// Reads the header fields people search by, and the class, from a parsed message.
struct EnvelopeReader {
  static let maximumAddresses = 1_000
  static let maximumReferences = 100
  static let maximumReceivedFields = 200

  let message: UnsafeMutablePointer<GMimeMessage>
  private var object: UnsafeMutablePointer<GMimeObject> { postrider_message_object(message) }

  init(_ message: UnsafeMutablePointer<GMimeMessage>) { self.message = message }

  func envelope() -> MessageEnvelope {
    MessageEnvelope(
      messageID: g_mime_message_get_message_id(message).flatMap { Self.identifier(String(cString: $0)) },
      subject: g_mime_message_get_subject(message).map {
        TextSanitizer.line(String(cString: $0), maximum: 2_000)
      } ?? "",
      from: addresses(g_mime_message_get_from(message)), to: addresses(g_mime_message_get_to(message)),
      cc: addresses(g_mime_message_get_cc(message)), replyTo: addresses(g_mime_message_get_reply_to(message)),
      inReplyTo: identifiers("In-Reply-To").first, references: references(),
      date: header("Date").flatMap(Self.date), receivedDate: receivedDate())
  }

  /// Whether any header field was found. `Content-…` fields belong to the root part.
  var hasHeaders: Bool {
    [object, g_mime_message_get_mime_part(message)].contains { holder in
      guard let holder, let list = g_mime_object_get_header_list(holder) else { return false }
      return g_mime_header_list_get_count(list) > 0
    }
  }

  /// The value of the first field of this name, decoded; `nil` when there is none.
  func header(_ name: String) -> String? { g_mime_object_get_header(object, name).map { String(cString: $0) } }

  // MARK: Addresses

  private func addresses(_ list: UnsafeMutablePointer<InternetAddressList>?) -> [EmailAddress] {
    var result: [EmailAddress] = []
    collect(list, into: &result, depth: 0)
    return result
  }

  /// Groups (RFC 5322 section 3.4) are flattened: their members count, their name does not.
  private func collect(
    _ list: UnsafeMutablePointer<InternetAddressList>?, into result: inout [EmailAddress], depth: Int
  ) {
    guard let list, depth < 4 else { return }
    for index in 0..<internet_address_list_length(list) {
      guard result.count < Self.maximumAddresses, let address = internet_address_list_get_address(list, index)
      else { return }
      if let mailbox = postrider_as_mailbox(address) {
        guard let text = internet_address_mailbox_get_addr(mailbox) else { continue }
        let name = internet_address_get_name(address).map {
          TextSanitizer.line(String(cString: $0), maximum: 500)
        }
        let found = TextSanitizer.line(String(cString: text), maximum: 320)
        if found.isEmpty { continue }
        result.append(EmailAddress(name: name == "" ? nil : name, address: found))
      } else if let group = postrider_as_group(address) {
        collect(internet_address_group_get_members(group), into: &result, depth: depth + 1)
      }
    }
  }

  // MARK: Message ids

  private static func identifier(_ text: String) -> String? {
    let found = TextSanitizer.word(text, maximum: 998)
    return found.isEmpty ? nil : found
  }

  private func identifiers(_ name: String) -> [String] {
    guard let value = g_mime_object_get_header(object, name), let list = g_mime_references_parse(nil, value)
    else { return [] }
    defer { g_mime_references_free(list) }
    return (0..<min(g_mime_references_length(list), 10_000)).compactMap { index in
      g_mime_references_get_message_id(list, index).flatMap { Self.identifier(String(cString: $0)) }
    }
  }

  /// Of a longer conversation the first and the 99 last are kept, as news readers do.
  private func references() -> [String] {
    let all = identifiers("References")
    guard all.count > Self.maximumReferences, let first = all.first else { return all }
    return [first] + all.suffix(Self.maximumReferences - 1)
  }

  // MARK: Dates

  /// A date of RFC 5322 section 3.3, or one of the broken forms GMime knows; `nil` outside 1970...9999.
  static func date(_ text: String) -> Date? {
    guard let parsed = g_mime_utils_header_decode_date(text) else { return nil }
    defer { g_date_time_unref(parsed) }
    let seconds = g_date_time_to_unix(parsed)
    return (0..<253_402_300_800).contains(seconds) ? Date(timeIntervalSince1970: Double(seconds)) : nil
  }

  /// The topmost `Received:` field whose date, after the last semicolon (RFC 5321 section 4.4), can be read.
  private func receivedDate() -> Date? {
    guard let headers = g_mime_object_get_header_list(object) else { return nil }
    var seen = 0
    for index in 0..<g_mime_header_list_get_count(headers) {
      guard let header = g_mime_header_list_get_header_at(headers, index),
        let name = g_mime_header_get_name(header), g_ascii_strcasecmp(name, "Received") == 0
      else { continue }
      seen += 1
      if seen > Self.maximumReceivedFields { return nil }
      guard let raw = g_mime_header_get_raw_value(header) else { continue }
      let value = String(cString: raw)
      guard let semicolon = value.utf8.lastIndex(of: UInt8(ascii: ";")) else { continue }
      let stamp = TextSanitizer.line(String(value[value.index(after: semicolon)...]), maximum: 200)
      if let date = Self.date(stamp) { return date }
    }
    return nil
  }
}

extension EnvelopeReader {
  /// Sorts a message: delivery reports (RFC 3464) and other reports first, then what says it is automatic
  /// (RFC 3834 section 5; `Precedence:` as older responders write it), then what nobody may answer (the null path).
  func messageClass(_ notification: DeliveryNotification?) -> MessageClass {
    if let notification {
      // A report of a delay or a delivery says that nothing came back.
      let reports = notification.recipients.map(\.report)
      return reports.isEmpty || reports.contains(where: \.isBounce) ? .bounce : .automatic
    }
    if let type = reportType(), type == "disposition-notification" { return .automatic }
    if let value = header("Auto-Submitted"), let word = Self.firstWord(value), word != "no" { return .automatic }
    if let value = header("Precedence"), let word = Self.firstWord(value),
      ["bulk", "auto_reply", "auto-reply", "junk"].contains(word)
    {
      return .automatic
    }
    // What vacation programs wrote before RFC 3834, and some still do.
    for name in ["X-Autoreply", "X-Autorespond", "X-Autoresponder", "X-Mail-Autoreply"] {
      if let value = header(name), Self.firstWord(value) != "no" { return .automatic }
    }
    if let path = header("Return-Path"), TextSanitizer.word(path, maximum: 10) == "<>" { return .automatic }
    return .ordinary
  }

  private func reportType() -> String? {
    guard let part = g_mime_message_get_mime_part(message), let type = g_mime_object_get_content_type(part),
      g_mime_content_type_is_type(type, "multipart", "report") != 0
    else { return nil }
    return g_mime_content_type_get_parameter(type, "report-type").map { String(cString: $0).lowercased() }
  }

  /// The keyword of a field such as `auto-replied (vacation); owner-email=…`, lower case.
  private static func firstWord(_ value: String) -> String? {
    let line = TextSanitizer.line(value, maximum: 200)
    return line.split(whereSeparator: { $0 == ";" || $0 == " " || $0 == "(" }).first.map { $0.lowercased() }
  }
}
