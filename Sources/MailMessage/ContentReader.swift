import CGMime

/// Decodes a part's content piece by piece, so that no more of it is held than is kept.
struct ContentReader {
  /// What was read.
  struct Content {
    /// The decoded octets; at most the limit.
    var bytes: [UInt8]
    /// How many there are in all.
    var sizeOctets: Int64
  }

  /// Decodes the transfer encoding and, where a charset is given, converts to UTF-8.
  ///
  /// Reads on behind the limit only to count. With `stopsAtLimit` it does not even do that.
  static func read(
    _ part: UnsafeMutablePointer<GMimePart>, limit: Int64, charset: String? = nil, stopsAtLimit: Bool = false
  ) -> Content {
    var result = Content(bytes: [], sizeOctets: 0)
    decode(part, charset: charset) { piece in
      result.sizeOctets += Int64(piece.count)
      let room = Int(min(limit - Int64(result.bytes.count), Int64(piece.count)))
      if room > 0 { result.bytes.append(contentsOf: piece.prefix(room)) }
      return !(stopsAtLimit && result.sizeOctets > limit)
    }
    return result
  }

  /// Decodes piece by piece, as long as the closure says that it wants more.
  static func decode(
    _ part: UnsafeMutablePointer<GMimePart>, charset: String? = nil, _ take: (UnsafeRawBufferPointer) -> Bool
  ) {
    guard let content = g_mime_part_get_content(part), let source = g_mime_data_wrapper_get_stream(content)
    else { return }
    g_mime_stream_reset(source)
    guard let filtered = Owned(postrider_filtered(source)) else { return }
    let encoding = g_mime_data_wrapper_get_encoding(content)
    switch encoding {
    case GMIME_CONTENT_ENCODING_BASE64, GMIME_CONTENT_ENCODING_QUOTEDPRINTABLE, GMIME_CONTENT_ENCODING_UUENCODE:
      postrider_add_filter(filtered.pointer, g_mime_filter_basic_new(encoding, 0))
    default: break
    }
    if let charset, let filter = g_mime_filter_charset_new(charset, "utf-8") {
      postrider_add_filter(filtered.pointer, filter)
    }
    withUnsafeTemporaryAllocation(of: CChar.self, capacity: 16_384) { buffer in
      guard let base = buffer.baseAddress else { return }
      // A filter may answer 0 before the end when it swallowed everything; a bound keeps a broken one from looping.
      var empty = 0
      while empty < 1_000 {
        let count = g_mime_stream_read(filtered.pointer, base, buffer.count)
        if count < 0 { return }
        if count == 0 {
          if g_mime_stream_eos(filtered.pointer) != 0 { return }
          empty += 1
          continue
        }
        empty = 0
        if !take(UnsafeRawBufferPointer(start: base, count: count)) { return }
      }
    }
  }

  /// The body text of a `text/*` part as UTF-8, and whether it was cut.
  static func text(_ part: UnsafeMutablePointer<GMimePart>, maximum: Int) -> (text: String, isCut: Bool) {
    let object = postrider_part_object(part)
    let declared = g_mime_object_get_content_type_parameter(object, "charset").map { String(cString: $0) } ?? ""
    // Line ends shrink and broken octets grow, so a little more is read than is kept.
    let limit = Int64(maximum) + Int64(maximum / 8)
    let charset = Charset(declared)
    var content: Content
    switch charset {
    case .utf8, .unknown: content = read(part, limit: limit, stopsAtLimit: true)
    case .converted(let name): content = read(part, limit: limit, charset: name, stopsAtLimit: true)
    case .undeclared:
      content = read(part, limit: limit, stopsAtLimit: true)
      // 8-bit octets without a charset: UTF-8 when they are, else what Western mailers meant.
      if content.bytes.contains(where: { $0 >= 0x80 }) && !isUTF8(content.bytes) {
        content = read(part, limit: limit, charset: "windows-1252", stopsAtLimit: true)
      }
    }
    return (TextSanitizer.body(content.bytes, maximum: maximum), content.sizeOctets > limit)
  }

  /// Whether the octets are UTF-8; a character cut off at the very end is forgiven.
  private static func isUTF8(_ bytes: [UInt8]) -> Bool {
    for drop in 0...min(3, bytes.count) where String(validating: bytes.dropLast(drop), as: UTF8.self) != nil {
      return true
    }
    return false
  }

  private enum Charset {
    case utf8
    case undeclared
    case converted(String)
    case unknown

    init(_ declared: String) {
      switch declared.lowercased() {
      case "": self = .undeclared
      case "us-ascii", "ascii", "ansi_x3.4-1968", "unknown-8bit", "x-unknown", "default": self = .undeclared
      case "utf-8", "utf8", "utf-8-mac", "unicode-1-1-utf-8": self = .utf8
      // As browsers do: what calls itself Latin 1 and uses 0x80...0x9F means the Windows code page.
      case "iso-8859-1", "iso8859-1", "latin1", "iso_8859-1": self = .converted("windows-1252")
      case let name:
        guard name.utf8.count <= 64, let probe = g_mime_filter_charset_new(name, "utf-8") else {
          self = .unknown
          return
        }
        g_object_unref(probe)
        self = .converted(name)
      }
    }
  }
}
