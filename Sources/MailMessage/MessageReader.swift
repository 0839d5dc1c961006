import CGMime
import PostriderCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Reads messages as they come from servers (RFC 5322, MIME RFC 2045 to 2049, RFC 2047, RFC 2231, RFC 6532).
///
/// Nothing a message holds is an error: what cannot be understood is left out and named in
/// ``ParsedMessage/problems``. Calls are synchronous, share nothing and may run side by side.
public enum MessageReader {
  /// Reads a message held in memory. Throws nothing for any octets; the error belongs to files, of the message or of its
  /// attachments.
  public static func parse(
    _ bytes: [UInt8], limits: MessageLimits = MessageLimits()
  ) throws(MessageError) -> ParsedMessage {
    GMimeLibrary.start()
    var scan = StructureScan(limits: limits)
    bytes.withUnsafeBufferPointer { scan.scan($0) }
    guard let stream = Owned(GMimeLibrary.memoryStream(bytes)) else {
      return ParsedMessage(envelope: MessageEnvelope())
    }
    return try parse(stream, cut: scan.cut, limits: limits)
  }

  /// Reads a message from a file without loading it whole: at most one attachment's limit at a time beside what the
  /// answer holds. Throws ``MessageError/unreadable(reason:)`` when the file cannot be opened or read.
  public static func parse(
    file path: String, limits: MessageLimits = MessageLimits()
  ) throws(MessageError) -> ParsedMessage {
    GMimeLibrary.start()
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw .unreadable(reason: String(cString: strerror(errno))) }
    let scanned: Result<StructureScan, MessageError> = withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 65_536) {
      buffer in
      var scan = StructureScan(limits: limits)
      while scan.cut == nil {
        let count = read(descriptor, buffer.baseAddress, buffer.count)
        if count == 0 { break }
        if count < 0 {
          if errno == EINTR { continue }
          return .failure(.unreadable(reason: String(cString: strerror(errno))))
        }
        scan.scan(UnsafeBufferPointer(rebasing: UnsafeBufferPointer(buffer)[..<count]))
      }
      return .success(scan)
    }
    let cut: (offset: Int64, reason: String)?
    switch scanned {
    case .success(let scan): cut = scan.cut
    case .failure(let error):
      close(descriptor)
      throw error
    }
    lseek(descriptor, 0, SEEK_SET)
    // The stream owns the descriptor from here on and closes it with its last reference.
    guard let stream = Owned(g_mime_stream_fs_new(descriptor)) else { throw .unreadable(reason: "out of memory") }
    return try parse(stream, cut: cut, limits: limits)
  }

  private static func parse(
    _ stream: borrowing Owned<GMimeStream>, cut: (offset: Int64, reason: String)?, limits: MessageLimits
  ) throws(MessageError) -> ParsedMessage {
    let warnings = ParserWarnings()
    // Header fields are parsed when they are asked for and warn then, so the collector outlives every GMime object.
    let (parsed, failure) = withExtendedLifetime(warnings) { () -> (ParsedMessage, RawMessageError?) in
      var result = ParsedMessage(envelope: MessageEnvelope())
      let options = g_mime_parser_options_new()
      defer { g_mime_parser_options_free(options) }
      configure(options, warnings)
      let start = g_mime_stream_tell(stream.pointer)
      guard let source = Owned(g_mime_stream_substream(stream.pointer, start, cut.map { gint64($0.offset) } ?? -1)),
        let parser = Owned(g_mime_parser_new_with_stream(source.pointer))
      else { return (result, nil) }
      g_mime_parser_set_format(parser.pointer, GMIME_FORMAT_MESSAGE)
      // Contents stay in the stream and are read from there, not copied.
      g_mime_parser_set_persist_stream(parser.pointer, 1)
      guard let message = Owned(g_mime_parser_construct_message(parser.pointer, options)) else {
        result.text = rawText(stream, limits)
        result.problems = ["the message is empty or has no structure"]
        return (result, nil)
      }
      let reader = EnvelopeReader(message.pointer)
      result.envelope = reader.envelope()
      result.notification = DeliveryStatusReader.notification(message.pointer)
      result.messageClass = reader.messageClass(result.notification)
      var walker = BodyWalker(limits: limits)
      if let root = g_mime_message_get_mime_part(message.pointer) { walker.walk(root) }
      if walker.spoolFailure != nil { walker.removeFiles() }
      result.text = walker.text
      result.html = walker.html
      result.attachments = walker.attachments
      if result.text == nil && result.html == nil && result.attachments.isEmpty && !reader.hasHeaders {
        result.text = rawText(stream, limits)
      }
      result.problems = Array(((cut.map { [$0.reason] } ?? []) + walker.problems + warnings.texts).prefix(50))
      return (result, walker.spoolFailure)
    }
    if case .notKept(let reason)? = failure { throw .unreadable(reason: reason) }
    return parsed
  }

  /// What is no message at all, bare lines without a header, is at least a text; `nil` when there is nothing.
  private static func rawText(_ stream: borrowing Owned<GMimeStream>, _ limits: MessageLimits) -> String? {
    g_mime_stream_reset(stream.pointer)
    let bytes = [UInt8](unsafeUninitializedCapacity: limits.maximumTextOctets) { buffer, count in
      let start = UnsafeMutableRawPointer(buffer.baseAddress)?.assumingMemoryBound(to: CChar.self)
      count = max(0, Int(g_mime_stream_read(stream.pointer, start, buffer.count)))
    }
    let text = TextSanitizer.body(bytes, maximum: limits.maximumTextOctets)
    return text.allSatisfy(\.isWhitespace) ? nil : text
  }

  private static func configure(_ options: OpaquePointer?, _ warnings: ParserWarnings) {
    // Not the process's locale: the same message reads the same on every worker.
    withCStrings(["utf-8", "windows-1252", "iso-8859-1"]) { names in
      g_mime_parser_options_set_fallback_charsets(options, names)
    }
    g_mime_parser_options_set_allow_addresses_without_domain(options, 1)
    g_mime_parser_options_set_warning_callback(
      options, { _, code, _, context in ParserWarnings.note(code, context) },
      Unmanaged.passUnretained(warnings).toOpaque())
  }

  /// Calls with a NULL-terminated array of C strings.
  private static func withCStrings(
    _ texts: [String], _ body: (UnsafeMutablePointer<UnsafePointer<CChar>?>?) -> Void
  ) {
    let copies = texts.map { strdup($0) }
    defer { for copy in copies { free(copy) } }
    var pointers: [UnsafePointer<CChar>?] = copies.map { UnsafePointer($0) } + [nil]
    pointers.withUnsafeMutableBufferPointer { body($0.baseAddress) }
  }
}
