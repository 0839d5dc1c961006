import CGMime
import FoundationEssentials
import PostriderCore

/// The header of a message that somebody wrote: checked, without blind copies, with what was missing.
struct RawHeader {
  /// The fields as they will leave, each line ended by CRLF; without the empty line behind them.
  private(set) var octets: [UInt8] = []
  private(set) var messageID = ""
  private(set) var subject = ""
  private(set) var recipients: [String] = []
  private(set) var inReplyTo: String?
  private(set) var autoSubmitted: AutoSubmitted?
  /// Whether a field holds UTF-8 beyond ASCII (RFC 6532).
  private(set) var isUTF8 = false

  /// Fields that may stand once at most (RFC 5322 section 3.6). Several `Bcc:` are read all the same: they do not leave.
  private static let single = [
    "date", "from", "sender", "reply-to", "to", "cc", "message-id", "in-reply-to", "references", "subject",
  ]
  /// Fields that must not leave.
  private static let removed: Set<String> = ["bcc", "resent-bcc", "return-path"]

  private struct Field {
    /// Lower case.
    var name: String
    var octets: ArraySlice<UInt8>
    var valueStart: Int
    var value: ArraySlice<UInt8> { octets[valueStart...] }
  }

  /// Reads a header whose lines are ended by CRLF. Throws ``RawMessageError/invalid(_:)`` with everything that is wrong.
  init(_ header: [UInt8], sender: String, now: Date) throws(RawMessageError) {
    let fields = try Self.fields(header)
    var problems = FieldProblems()
    if fields.isEmpty { problems.add("", "empty", "the message has no header field") }
    for name in Self.single where fields.count(where: { $0.name == name }) > 1 {
      problems.add("header:\(name)", "duplicate", "may stand once only")
    }
    isUTF8 = header.contains { $0 >= 0x80 }
    if isUTF8, String(validating: header, as: UTF8.self) == nil {
      problems.add("", "not-utf-8", "header fields beyond ASCII must be UTF-8, or encoded words (RFC 2047)")
    }
    let envelope = Self.envelope(header)
    let names = Set(fields.map(\.name))
    if envelope.from.isEmpty { problems.add("header:from", "required", "must name the author") }
    messageID = envelope.messageID ?? ""
    if names.contains("message-id") {
      MessageIDRules.check(messageID, at: "header:message-id", &problems)
    } else {
      messageID = MessageBuilder.newMessageID(for: InternationalAddress.wireForm(sender) ?? sender)
    }
    if !problems.problems.isEmpty { throw .invalid(problems.problems) }
    subject = envelope.subject
    inReplyTo = envelope.inReplyTo
    autoSubmitted = fields.lazy.filter { $0.name == "auto-submitted" }.compactMap { Self.autoSubmitted($0.value) }.first
    // Read as if they were named openly: the library has no list for them that counts several fields.
    let blind = fields.filter { $0.name == "bcc" }.flatMap { Array("To:".utf8) + $0.value }
    recipients = (envelope.to + envelope.cc + Self.envelope(blind).to).map(\.address)
    for field in fields where !Self.removed.contains(field.name) { octets += field.octets }
    if !names.contains("date") { octets += Array("Date: \(Self.date(now))\r\n".utf8) }
    if !names.contains("message-id") { octets += Array("Message-ID: <\(messageID)>\r\n".utf8) }
  }

  private static func fields(_ header: [UInt8]) throws(RawMessageError) -> [Field] {
    var fields: [Field] = []
    var line = 1
    var start = 0
    while start < header.count {
      let end = (header[start...].firstIndex(of: 0x0A) ?? header.count - 1) + 1
      if header[start] == 0x20 || header[start] == 0x09 {
        guard let last = fields.popLast() else {
          throw RawMessageIntake.refused(
            "line:1", "not-a-header", "begins with a blank; a message begins with its header")
        }
        fields.append(Field(name: last.name, octets: header[last.octets.startIndex..<end], valueStart: last.valueStart))
      } else {
        fields.append(try field(header[start..<end], line))
      }
      start = end
      line += 1
    }
    return fields
  }

  private static func field(_ octets: ArraySlice<UInt8>, _ line: Int) throws(RawMessageError) -> Field {
    guard let colon = octets.firstIndex(of: UInt8(ascii: ":")), colon > octets.startIndex,
      octets[..<colon].allSatisfy({ (0x21...0x7E).contains($0) })
    else {
      let isMbox = octets.starts(with: "From ".utf8)
      throw RawMessageIntake.refused(
        "line:\(line)", "not-a-header",
        isMbox
          ? "is the separator line of an mbox file; leave it out"
          : "is no header field (`Name: value`); an empty line ends the header")
    }
    return Field(
      name: String(decoding: octets[..<colon], as: UTF8.self).lowercased(), octets: octets, valueStart: colon + 1)
  }

  /// Any word but `no` is a program's; one that is none of the two known says that it was not asked.
  private static func autoSubmitted(_ value: ArraySlice<UInt8>) -> AutoSubmitted? {
    let word = String(decoding: value, as: UTF8.self).split { $0.isWhitespace || $0 == ";" || $0 == "(" }.first?
      .lowercased()
    return word.flatMap { $0 == "no" ? nil : AutoSubmitted(rawValue: $0) ?? .generated }
  }

  private static func envelope(_ octets: [UInt8]) -> MessageEnvelope {
    if octets.isEmpty { return MessageEnvelope() }
    // Octets in memory can always be read.
    return (try? MessageReader.parse(octets + [0x0D, 0x0A]))?.envelope ?? MessageEnvelope()
  }

  /// RFC 5322 section 3.3, in UTC.
  private static func date(_ date: Date) -> String {
    guard let moment = g_date_time_new_from_unix_utc(gint64(date.timeIntervalSince1970.rounded(.down))) else {
      return ""
    }
    defer { g_date_time_unref(moment) }
    guard let text = g_mime_utils_header_format_date(moment) else { return "" }
    defer { g_free(text) }
    return String(cString: text)
  }
}
