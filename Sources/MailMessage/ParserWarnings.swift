import CGMime

/// Collects what GMime finds wrong, each kind once. Lives and dies on one thread, inside one parse.
final class ParserWarnings {
  private(set) var texts: [String] = []

  /// GMime's callback; the context is the collector.
  static func note(_ code: GMimeParserWarning, _ context: UnsafeMutableRawPointer?) {
    guard let context, let text = text(of: code) else { return }
    let warnings = Unmanaged<ParserWarnings>.fromOpaque(context).takeUnretainedValue()
    if warnings.texts.count < 20 && !warnings.texts.contains(text) { warnings.texts.append(text) }
  }

  private static func text(of code: GMimeParserWarning) -> String? {
    switch code {
    case GMIME_WARN_DUPLICATED_HEADER: "a header field that may stand once is repeated"
    case GMIME_WARN_DUPLICATED_PARAMETER: "a header parameter is repeated"
    // Ordinary since RFC 6532.
    case GMIME_WARN_UNENCODED_8BIT_HEADER: nil
    case GMIME_WARN_INVALID_CONTENT_TYPE: "a Content-Type is not valid"
    case GMIME_WARN_INVALID_RFC2047_HEADER_VALUE: "an encoded word is not valid"
    case GMIME_WARN_MALFORMED_MULTIPART: "a multipart has no parts"
    case GMIME_WARN_TRUNCATED_MESSAGE: "the message is cut off"
    case GMIME_WARN_MALFORMED_MESSAGE: "the message is malformed"
    case GMIME_CRIT_INVALID_HEADER_NAME: "a header field's name is not valid"
    case GMIME_CRIT_CONFLICTING_HEADER: "two header fields contradict each other"
    case GMIME_CRIT_CONFLICTING_PARAMETER: "two header parameters contradict each other"
    case GMIME_CRIT_MULTIPART_WITHOUT_BOUNDARY: "a multipart has no boundary"
    case GMIME_WARN_INVALID_PARAMETER: "a header parameter is not valid"
    case GMIME_WARN_INVALID_ADDRESS_LIST: "an address list is not valid"
    case GMIME_CRIT_NESTING_OVERFLOW: "parts are nested deeper than GMime follows"
    case GMIME_WARN_PART_WITHOUT_CONTENT: "a part has no content"
    case GMIME_CRIT_PART_WITHOUT_HEADERS_OR_CONTENT: "a part has neither headers nor content"
    default: "the message is broken in a way this version does not know"
    }
  }
}
