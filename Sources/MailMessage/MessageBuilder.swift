import CGMime
import FoundationEssentials
import PostriderCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// A file that goes with a composed message.
public struct MessageAttachment: Hashable, Sendable {
  /// Its name, any text; line breaks become spaces, folders are left out.
  public var fileName: String
  /// `type/subtype`; guessed from the name when `nil`.
  public var contentType: String?
  /// The octets, or a file that is read while the message is written.
  public var content: Content

  /// Describes a file.
  public init(fileName: String, contentType: String? = nil, content: Content) {
    self.fileName = fileName
    self.contentType = contentType
    self.content = content
  }
}

/// Composes a message of text, HTML and files (RFC 5322, RFC 2047, RFC 2231, MIME).
///
/// Names and subject may hold any text; line breaks in them become spaces, so nothing given here can add a header
/// field. Addresses and extra fields with control characters are refused. Domains are written in A-labels; a message
/// whose addresses are ASCII then is ASCII throughout, whatever its texts hold.
public struct MessageBuilder: Sendable {
  /// The author.
  public var from: EmailAddress
  /// The recipients named in the message; at least one. Where it is sent is the envelope's business.
  public var to: [EmailAddress]
  /// Those who get a copy. Blind copies stand in no message: they are the envelope's business alone.
  public var cc: [EmailAddress]
  /// Any text, ≤2,000 characters.
  public var subject: String
  /// Where answers go instead of the author.
  public var replyTo: [EmailAddress] = []
  /// The Message-ID that this one answers, without angle brackets.
  public var inReplyTo: String?
  /// The conversation, oldest first, without angle brackets.
  public var references: [String] = []
  /// The text body; line ends of any kind.
  public var text: String?
  /// The HTML body: alone, or as the other form of ``text``.
  public var html: String?
  /// The files, in this order.
  public var attachments: [MessageAttachment] = []
  /// `local@domain` without angle brackets. Keep it across attempts: a resend must be recognisable.
  public var messageID: String
  /// The `Date:` field.
  public var date: Date
  /// Further fields in this order: `("Auto-Submitted", "auto-generated")`. Values are one line; non-ASCII is encoded.
  public var headers: [(name: String, value: String)]

  /// Describes a message.
  public init(
    from: EmailAddress, to: [EmailAddress], cc: [EmailAddress] = [], subject: String, text: String?,
    html: String? = nil, messageID: String, date: Date, headers: [(name: String, value: String)] = []
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

  /// What the message needs of a server: UTF-8 in header fields only where an address cannot do without.
  public var encoding: MessageEncoding {
    ([from] + to + cc + replyTo).allSatisfy {
      InternationalAddress.wireForm($0.address)?.utf8.allSatisfy { $0 < 0x80 } ?? false
    } ? .sevenBit : .utf8
  }

  /// Writes the message with CRLF line ends, ready for `DATA` but not dot-stuffed.
  ///
  /// Throws ``MessageError/invalid(field:reason:)`` for an address, a Message-ID or an extra field that cannot stand in
  /// a message, and for a file that cannot be read.
  public func build() throws(MessageError) -> [UInt8] {
    GMimeLibrary.start()
    guard let memory = Owned(g_mime_stream_mem_new()) else { throw .notWritten }
    try write(to: memory.pointer)
    guard let array = postrider_written_bytes(memory.pointer), let data = array.pointee.data else { throw .notWritten }
    return Array(UnsafeBufferPointer(start: data, count: Int(array.pointee.len)))
  }

  /// Writes the message into a new private file; returns its size in octets. Files that go with it are read piece by
  /// piece, so none lies in memory as a whole.
  ///
  /// Throws as ``build()`` does, and ``MessageError/unreadable(reason:)`` when the file cannot be made.
  public func write(toFile path: String) throws(MessageError) -> Int64 {
    GMimeLibrary.start()
    let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw .unreadable(reason: String(cString: strerror(errno))) }
    // The stream owns the descriptor from here on and closes it with its last reference.
    guard let file = Owned(g_mime_stream_fs_new(descriptor)),
      let buffered = Owned(g_mime_stream_buffer_new(file.pointer, GMIME_STREAM_BUFFER_BLOCK_WRITE))
    else { throw .notWritten }
    do throws(MessageError) {
      try write(to: buffered.pointer)
      guard g_mime_stream_flush(buffered.pointer) == 0 else { throw .notWritten }
    } catch {
      unlink(path)
      throw error
    }
    return Int64(g_mime_stream_length(file.pointer))
  }

  private func write(to stream: UnsafeMutablePointer<GMimeStream>) throws(MessageError) {
    try check()
    guard let message = Owned(g_mime_message_new(1)), let format = g_mime_format_options_new()
    else { throw .notWritten }
    defer { g_mime_format_options_free(format) }
    let object = postrider_message_object(message.pointer)
    g_mime_format_options_set_newline_format(format, GMIME_NEWLINE_FORMAT_DOS)
    setHeader(of: message.pointer)
    try setBody(of: message.pointer)
    guard g_mime_object_write_to_stream(object, format, stream) > 0 else { throw .notWritten }
  }

  private func setHeader(of message: UnsafeMutablePointer<GMimeMessage>) {
    let object = postrider_message_object(message)
    let lists = [
      (GMIME_ADDRESS_TYPE_FROM, [from]), (GMIME_ADDRESS_TYPE_REPLY_TO, replyTo), (GMIME_ADDRESS_TYPE_TO, to),
      (GMIME_ADDRESS_TYPE_CC, cc),
    ]
    for (type, list) in lists {
      for address in list { g_mime_message_add_mailbox(message, type, Self.name(address), address.address) }
    }
    g_mime_message_set_subject(message, TextSanitizer.line(subject, maximum: 2_000), "utf-8")
    g_mime_message_set_message_id(message, messageID)
    if let moment = g_date_time_new_from_unix_utc(gint64(date.timeIntervalSince1970.rounded(.down))) {
      g_mime_message_set_date(message, moment)
      g_date_time_unref(moment)
    }
    if let inReplyTo { g_mime_object_append_header(object, "In-Reply-To", "<\(inReplyTo)>", "utf-8") }
    if !references.isEmpty {
      let list = references.map { "<\($0)>" }.joined(separator: " ")
      g_mime_object_append_header(object, "References", list, "utf-8")
    }
    for header in headers { g_mime_object_append_header(object, header.name, header.value, "utf-8") }
  }

  private func setBody(of message: UnsafeMutablePointer<GMimeMessage>) throws(MessageError) {
    if attachments.isEmpty {
      try withBody { body in g_mime_message_set_mime_part(message, body) }
      return
    }
    guard let mixed = Owned(g_mime_multipart_new_with_subtype("mixed")) else { throw .notWritten }
    if text != nil || html != nil { try withBody { body in g_mime_multipart_add(mixed.pointer, body) } }
    for attachment in attachments {
      let part = try Self.filePart(attachment)
      g_mime_multipart_add(mixed.pointer, postrider_part_object(part.pointer))
    }
    g_mime_message_set_mime_part(message, postrider_multipart_object(mixed.pointer))
  }

  /// The text, the HTML, or both as alternatives, the better one last (RFC 2046 section 5.1.4).
  private func withBody(_ use: (UnsafeMutablePointer<GMimeObject>?) -> Void) throws(MessageError) {
    guard let html else {
      let plain = try Self.textPart(text ?? "", subtype: "plain")
      return use(postrider_part_object(plain.pointer))
    }
    let formatted = try Self.textPart(html, subtype: "html")
    guard let text else { return use(postrider_part_object(formatted.pointer)) }
    let plain = try Self.textPart(text, subtype: "plain")
    guard let both = Owned(g_mime_multipart_new_with_subtype("alternative")) else { throw .notWritten }
    g_mime_multipart_add(both.pointer, postrider_part_object(plain.pointer))
    g_mime_multipart_add(both.pointer, postrider_part_object(formatted.pointer))
    use(postrider_multipart_object(both.pointer))
  }

  /// A file in base64: whatever it holds arrives as it was.
  private static func filePart(_ file: MessageAttachment) throws(MessageError) -> Owned<GMimePart> {
    let name = TextSanitizer.fileName(file.fileName) ?? "attachment"
    let type = (file.contentType ?? ContentTypes.guess(name)).split(separator: "/", maxSplits: 1)
    guard type.count == 2, !["multipart", "message"].contains(type[0].lowercased()) else {
      throw .invalid(field: "the content type of an attachment", reason: "must be type/subtype of a file")
    }
    let source: UnsafeMutablePointer<GMimeStream>?
    switch file.content {
    case .bytes(let bytes): source = GMimeLibrary.memoryStream(bytes)
    case .file(let path, _):
      let descriptor = open(path, O_RDONLY | O_CLOEXEC)
      guard descriptor >= 0 else {
        throw .invalid(field: "the attachment \(name)", reason: "cannot be read: \(String(cString: strerror(errno)))")
      }
      source = g_mime_stream_fs_new(descriptor)
    }
    guard let part = Owned(g_mime_part_new_with_type(String(type[0]), String(type[1]))), let stream = Owned(source),
      let content = Owned(g_mime_data_wrapper_new_with_stream(stream.pointer, GMIME_CONTENT_ENCODING_DEFAULT))
    else { throw .notWritten }
    g_mime_object_set_disposition(postrider_part_object(part.pointer), "attachment")
    g_mime_part_set_filename(part.pointer, name)
    g_mime_part_set_content(part.pointer, content.pointer)
    g_mime_part_set_content_encoding(part.pointer, GMIME_CONTENT_ENCODING_BASE64)
    return part
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
    for address in replyTo { try Self.check(address: address.address, "an address for answers") }
    try Self.check(address: messageID, "the Message-ID")
    for id in [inReplyTo].compactMap({ $0 }) + references { try Self.check(address: id, "a referenced Message-ID") }
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
