import CGMime
import FoundationEssentials
import PostriderCore

/// Composes a text or text-and-HTML message (RFC 5322, RFC 2047, MIME).
///
/// Names and subject may hold any text; line breaks in them become spaces, so nothing given here can add a header
/// field. Addresses and extra fields with control characters are refused.
public struct MessageBuilder: Sendable {
  /// The author.
  public var from: EmailAddress
  /// The recipients named in the message; at least one. Where it is sent is the envelope's business.
  public var to: [EmailAddress]
  /// Those who get a copy. Blind copies stand in no message: they are the envelope's business alone.
  public var cc: [EmailAddress]
  /// Any text, ≤2,000 characters.
  public var subject: String
  /// The text body; line ends of any kind.
  public var text: String
  /// The same as HTML; `nil` for a message of text alone.
  public var html: String?
  /// `local@domain` without angle brackets. Keep it across attempts: a resend must be recognisable.
  public var messageID: String
  /// The `Date:` field.
  public var date: Date
  /// Further fields in this order: `("Auto-Submitted", "auto-generated")`. Values are one line; non-ASCII is encoded.
  public var headers: [(name: String, value: String)]

  /// Describes a message.
  public init(
    from: EmailAddress, to: [EmailAddress], cc: [EmailAddress] = [], subject: String, text: String, html: String? = nil,
    messageID: String, date: Date, headers: [(name: String, value: String)] = []
  ) {
    self.from = from
    self.to = to
    self.cc = cc
    self.subject = subject
    self.text = text
    self.html = html
    self.messageID = messageID
    self.date = date
    self.headers = headers
  }

  /// A fresh, random Message-ID in the domain of an address.
  public static func newMessageID(for address: String) -> String {
    let domain = address.split(separator: "@").last.map(String.init) ?? "localhost"
    return "\(UUID().uuidString.lowercased())@\(domain)"
  }

  /// Writes the message with CRLF line ends, ready for `DATA` but not dot-stuffed.
  ///
  /// Throws ``MessageError/invalid(field:reason:)`` for an address, a Message-ID or an extra field that cannot stand in
  /// a message.
  public func build() throws(MessageError) -> [UInt8] {
    try check()
    GMimeLibrary.start()
    guard let message = Owned(g_mime_message_new(1)), let format = g_mime_format_options_new(),
      let memory = Owned(g_mime_stream_mem_new())
    else { throw .notWritten }
    defer { g_mime_format_options_free(format) }
    let object = postrider_message_object(message.pointer)
    g_mime_format_options_set_newline_format(format, GMIME_NEWLINE_FORMAT_DOS)
    g_mime_message_add_mailbox(message.pointer, GMIME_ADDRESS_TYPE_FROM, Self.name(from), from.address)
    for recipient in to {
      g_mime_message_add_mailbox(message.pointer, GMIME_ADDRESS_TYPE_TO, Self.name(recipient), recipient.address)
    }
    for recipient in cc {
      g_mime_message_add_mailbox(message.pointer, GMIME_ADDRESS_TYPE_CC, Self.name(recipient), recipient.address)
    }
    g_mime_message_set_subject(message.pointer, TextSanitizer.line(subject, maximum: 2_000), "utf-8")
    g_mime_message_set_message_id(message.pointer, messageID)
    if let moment = g_date_time_new_from_unix_utc(gint64(date.timeIntervalSince1970.rounded(.down))) {
      g_mime_message_set_date(message.pointer, moment)
      g_date_time_unref(moment)
    }
    for header in headers { g_mime_object_append_header(object, header.name, header.value, "utf-8") }
    try setBody(of: message.pointer)
    let count = g_mime_object_write_to_stream(object, format, memory.pointer)
    guard count > 0, let array = postrider_written_bytes(memory.pointer), let data = array.pointee.data
    else { throw .notWritten }
    return Array(UnsafeBufferPointer(start: data, count: Int(array.pointee.len)))
  }

  private func setBody(of message: UnsafeMutablePointer<GMimeMessage>) throws(MessageError) {
    let plain = try Self.textPart(text, subtype: "plain")
    guard let html else {
      g_mime_message_set_mime_part(message, postrider_part_object(plain.pointer))
      return
    }
    let formatted = try Self.textPart(html, subtype: "html")
    guard let both = Owned(g_mime_multipart_new_with_subtype("alternative")) else { throw .notWritten }
    g_mime_multipart_add(both.pointer, postrider_part_object(plain.pointer))
    g_mime_multipart_add(both.pointer, postrider_part_object(formatted.pointer))
    g_mime_message_set_mime_part(message, postrider_multipart_object(both.pointer))
  }

  /// A UTF-8 part: as it is when it is short ASCII lines, else quoted-printable, which every server passes on.
  private static func textPart(_ text: String, subtype: String) throws(MessageError) -> Owned<GMimePart> {
    var bytes = Array(TextSanitizer.body(text.utf8, maximum: .max).utf8)
    if bytes.last != 0x0A { bytes.append(0x0A) }
    let isPlain =
      bytes.allSatisfy { $0 == 0x09 || $0 == 0x0A || (0x20..<0x7F).contains($0) }
      && bytes.split(separator: 0x0A).allSatisfy { $0.count <= 78 && !$0.starts(with: Array("From ".utf8)) }
    guard let part = Owned(g_mime_part_new_with_type("text", subtype)),
      let memory = Owned(GMimeLibrary.memoryStream(bytes)),
      let content = Owned(g_mime_data_wrapper_new_with_stream(memory.pointer, GMIME_CONTENT_ENCODING_DEFAULT))
    else { throw .notWritten }
    g_mime_object_set_content_type_parameter(postrider_part_object(part.pointer), "charset", "utf-8")
    g_mime_part_set_content(part.pointer, content.pointer)
    g_mime_part_set_content_encoding(
      part.pointer, isPlain ? GMIME_CONTENT_ENCODING_7BIT : GMIME_CONTENT_ENCODING_QUOTEDPRINTABLE)
    return part
  }

  private static func name(_ address: EmailAddress) -> String? {
    address.name.map { TextSanitizer.line($0, maximum: 500) }
  }

  private func check() throws(MessageError) {
    try Self.check(address: from.address, "the sender's address")
    if to.isEmpty { throw .invalid(field: "the list of recipients", reason: "must not be empty") }
    for recipient in to + cc { try Self.check(address: recipient.address, "a recipient's address") }
    try Self.check(address: messageID, "the Message-ID")
    for header in headers {
      guard (1...76).contains(header.name.utf8.count),
        header.name.utf8.allSatisfy({ (0x21...0x7E).contains($0) && $0 != UInt8(ascii: ":") })
      else {
        throw .invalid(field: "a header field's name", reason: "must be 1 to 76 printable ASCII characters, no colon")
      }
      if header.value.unicodeScalars.contains(where: { $0.value < 0x20 || $0.value == 0x7F })
        || header.value.utf8.count > 10_000
      {
        throw .invalid(
          field: "the header field \(header.name)",
          reason: "must be one line without control characters, at most 10,000 octets")
      }
    }
  }

  private static func check(address: String, _ field: String) throws(MessageError) {
    let isGood =
      (3...320).contains(address.utf8.count) && address.contains("@")
      && address.unicodeScalars.allSatisfy {
        $0.value > 0x20 && $0.value != 0x7F && !"<>,;()".unicodeScalars.contains($0)
      }
    if !isGood { throw .invalid(field: field, reason: "must be local@domain without blanks or brackets") }
  }
}
