import CGMime
import PostriderCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// Goes through a message's parts once, picks the bodies and lists the rest as attachments.
struct BodyWalker {
  private let limits: MessageLimits
  private var parts = 0
  private(set) var text: String?
  private(set) var html: String?
  private(set) var attachments: [ParsedAttachment] = []
  private(set) var problems: [String] = []
  /// Why attachments could not be kept; the message is not read then.
  private(set) var spoolFailure: RawMessageError?
  /// What attachments may still take in memory.
  private var memoryLeft: Int

  init(limits: MessageLimits) {
    self.limits = limits
    memoryLeft = limits.spoolDirectory == nil ? .max : limits.attachmentMemoryOctets
  }

  /// Removes the attachments' files.
  func removeFiles() {
    for case let content? in attachments.map(\.spooled) { MessageFiles.remove(content) }
  }

  mutating func walk(_ root: UnsafeMutablePointer<GMimeObject>) {
    visit(root, depth: 1)
    if parts > limits.maximumParts {
      problems.append("the message has more than \(limits.maximumParts) parts; the rest was not read")
    }
  }

  private mutating func visit(_ object: UnsafeMutablePointer<GMimeObject>, depth: Int) {
    parts += 1
    guard parts <= limits.maximumParts else { return }
    if let multipart = postrider_as_multipart(object) {
      guard depth < limits.maximumNesting else {
        note("parts are nested deeper than \(limits.maximumNesting); the inner ones were not read")
        return
      }
      if isType(object, "multipart", "alternative") {
        visitAlternatives(multipart, depth: depth)
      } else {
        for index in 0..<g_mime_multipart_get_count(multipart) where parts <= limits.maximumParts {
          if let child = g_mime_multipart_get_part(multipart, index) { visit(child, depth: depth + 1) }
        }
      }
    } else if let nested = postrider_as_message_part(object) {
      addMessage(nested, as: object)
    } else if let part = postrider_as_part(object) {
      visitLeaf(part, object)
    }
  }

  /// Of several forms of the same content the last one that can be shown is the best (RFC 2046 section 5.1.4).
  ///
  /// Each form is walked by itself; a later text replaces an earlier one of the same alternative, while texts that
  /// stood before the alternative stay.
  private mutating func visitAlternatives(_ multipart: UnsafeMutablePointer<GMimeMultipart>, depth: Int) {
    let before = (text: text, html: html)
    var best: (text: String?, html: String?) = (nil, nil)
    for index in 0..<g_mime_multipart_get_count(multipart) where parts <= limits.maximumParts {
      guard let child = g_mime_multipart_get_part(multipart, index) else { continue }
      text = nil
      html = nil
      visit(child, depth: depth + 1)
      best = (text ?? best.text, html ?? best.html)
    }
    text = before.text
    html = before.html
    if let found = best.text { text = joined(text, found) }
    if let found = best.html { html = joined(html, found) }
  }

  private mutating func visitLeaf(
    _ part: UnsafeMutablePointer<GMimePart>, _ object: UnsafeMutablePointer<GMimeObject>
  ) {
    let isBody = g_mime_part_is_attachment(part) == 0 && g_mime_part_get_filename(part) == nil
    if isBody && isType(object, "text", "plain") {
      text = joined(text, readText(part))
    } else if isBody && isType(object, "text", "html") {
      html = joined(html, readText(part))
    } else {
      addAttachment(part, object)
    }
  }

  private mutating func readText(_ part: UnsafeMutablePointer<GMimePart>) -> String {
    let (text, isCut) = ContentReader.text(part, maximum: limits.maximumTextOctets)
    if isCut { noteCutText() }
    return text
  }

  /// Several bodies one after the other, as Apple Mail writes around pictures, make one text, within the bound.
  private mutating func joined(_ present: String?, _ addition: String) -> String {
    guard let present, !present.isEmpty else { return addition }
    guard !addition.isEmpty else { return present }
    let separator = present.hasSuffix("\n") ? "" : "\n"
    if present.utf8.count + separator.utf8.count + addition.utf8.count <= limits.maximumTextOctets {
      return present + separator + addition
    }
    noteCutText()
    return present
  }

  private mutating func addAttachment(
    _ part: UnsafeMutablePointer<GMimePart>, _ object: UnsafeMutablePointer<GMimeObject>
  ) {
    let name = g_mime_part_get_filename(part).flatMap { TextSanitizer.fileName(String(cString: $0)) }
    let type = contentType(object)
    var size: Int64 = 0
    let maximum = limits.maximumAttachmentOctets
    let content = spooled { spool in
      ContentReader.decode(part) { piece in
        size += Int64(piece.count)
        // Read on only to count.
        if size > maximum { spool.remove() } else { spool.append(Array(piece)) }
        return spool.failure == nil
      }
    }
    add(content, sizeOctets: size, type: type, name: name)
  }

  /// Collects what the closure gives, in memory or in a file; `nil` when it cannot be kept.
  private mutating func spooled(_ fill: (inout AttachmentSpool) -> Void) -> Content? {
    var spool = AttachmentSpool(directory: limits.spoolDirectory, memoryOctets: min(memoryLeft, 65_536))
    if limits.spoolDirectory == nil { spool = AttachmentSpool(directory: nil, memoryOctets: .max) }
    fill(&spool)
    let content = spool.finish()
    if let failure = spool.failure { spoolFailure = failure }
    if case .bytes(let bytes)? = content, memoryLeft != .max { memoryLeft -= bytes.count }
    return content
  }

  /// A message in a message is an attachment, written out as it stands and not looked into.
  private mutating func addMessage(
    _ nested: UnsafeMutablePointer<GMimeMessagePart>, as object: UnsafeMutablePointer<GMimeObject>
  ) {
    var name = g_mime_object_get_content_disposition_parameter(object, "filename")
      .flatMap { TextSanitizer.fileName(String(cString: $0)) }
    guard let message = g_mime_message_part_get_message(nested) else {
      add(.bytes([]), sizeOctets: 0, type: contentType(object), name: name)
      return
    }
    if name == nil, let subject = g_mime_message_get_subject(message) {
      name = TextSanitizer.fileName(TextSanitizer.line(String(cString: subject), maximum: 100)).map { "\($0).eml" }
    }
    let written = postrider_message_object(message)
    // Counted first: a memory stream has no bound.
    guard let counter = Owned(g_mime_stream_null_new()) else { return }
    g_mime_object_write_to_stream(written, nil, counter.pointer)
    let size = Int64(postrider_written_count(counter.pointer))
    let type = contentType(object)
    guard size <= limits.maximumAttachmentOctets else { return add(nil, sizeOctets: size, type: type, name: name) }
    if let directory = limits.spoolDirectory, size > min(memoryLeft, 65_536) {
      return add(writeFile(written, in: directory, size), sizeOctets: size, type: type, name: name)
    }
    var bytes: [UInt8] = []
    if let memory = Owned(g_mime_stream_mem_new()) {
      g_mime_object_write_to_stream(written, nil, memory.pointer)
      if let array = postrider_written_bytes(memory.pointer), let data = array.pointee.data {
        bytes = Array(UnsafeBufferPointer(start: data, count: Int(array.pointee.len)))
      }
    }
    if memoryLeft != .max { memoryLeft -= bytes.count }
    add(.bytes(bytes), sizeOctets: size, type: type, name: name)
  }

  /// Writes an inner message to a file, never holding it whole.
  private mutating func writeFile(
    _ object: UnsafeMutablePointer<GMimeObject>?, in directory: String, _ size: Int64
  ) -> Content? {
    let path = MessageFiles.newPath(in: directory)
    guard let file = Owned(g_mime_stream_fs_open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600, nil)) else {
      spoolFailure = .notKept(reason: "the file \(path) cannot be written")
      return nil
    }
    // The number that the library returns counts some line ends twice; where the stream stands is what was written.
    let isWritten = g_mime_object_write_to_stream(object, nil, file.pointer) >= 0
    let end = g_mime_stream_tell(file.pointer)
    if !isWritten || end != size || g_mime_stream_close(file.pointer) != 0 {
      spoolFailure = .notKept(reason: "the file \(path) cannot be written: \(String(cString: strerror(errno)))")
      MessageFiles.remove(.file(path: path, sizeOctets: size))
      return nil
    }
    return .file(path: path, sizeOctets: size)
  }

  private mutating func add(_ content: Content?, sizeOctets: Int64, type: String, name: String?) {
    let isDropped = sizeOctets > limits.maximumAttachmentOctets
    let record = AttachmentRecord(fileName: name, contentType: type, sizeOctets: sizeOctets, dropped: isDropped)
    switch content {
    case _ where isDropped: attachments.append(ParsedAttachment(record: record, content: nil))
    case .bytes(let bytes)?: attachments.append(ParsedAttachment(record: record, content: bytes))
    case let file: attachments.append(ParsedAttachment(record: record, content: nil, spooled: file))
    }
  }

  private func isType(_ object: UnsafeMutablePointer<GMimeObject>, _ type: String, _ subtype: String) -> Bool {
    guard let found = g_mime_object_get_content_type(object) else { return false }
    return g_mime_content_type_is_type(found, type, subtype) != 0
  }

  private func contentType(_ object: UnsafeMutablePointer<GMimeObject>) -> String {
    guard let type = g_mime_object_get_content_type(object), let name = g_mime_content_type_get_mime_type(type)
    else { return "application/octet-stream" }
    defer { g_free(name) }
    let text = TextSanitizer.word(String(cString: name).lowercased(), maximum: 200)
    return text.isEmpty ? "application/octet-stream" : text
  }

  private mutating func noteCutText() {
    note("the body is longer than \(limits.maximumTextOctets) octets; the rest was left out")
  }

  private mutating func note(_ problem: String) {
    if problems.count < 50 && !problems.contains(problem) { problems.append(problem) }
  }
}
