/// Reads the body of a multi-line answer: takes the stuffed dots away and finds its end (RFC 1939 section 3).
///
/// Works on whatever part of the body has come, cut anywhere. Only CRLF starts a line: a bare LF before a dot is content,
/// so that a message cannot end its own transfer.
struct DotUnstuffer {
  private enum Position {
    case lineStart
    case dot
    case dotCR
    case middle
    case afterCR
  }

  private var position = Position.lineStart

  /// What became of a part.
  struct Progress {
    /// How many octets were taken; the rest belongs to the next answer.
    var taken: Int
    /// Whether the end of the body was found.
    var finished: Bool
  }

  /// Reads a part and appends its content.
  mutating func read(_ bytes: UnsafeRawBufferPointer, into output: inout [UInt8]) -> Progress {
    let cr = UInt8(ascii: "\r")
    let lf = UInt8(ascii: "\n")
    let dot = UInt8(ascii: ".")
    var index = 0
    while index < bytes.count {
      let octet = bytes[index]
      switch position {
      case .lineStart:
        if octet == dot {
          position = .dot
          index += 1
        } else {
          position = .middle
        }
      case .dot:
        if octet == cr {
          position = .dotCR
          index += 1
        } else {
          position = .middle
        }
      case .dotCR:
        if octet == lf { return Progress(taken: index + 1, finished: true) }
        output.append(cr)
        position = .middle
      case .afterCR:
        if octet == lf {
          output.append(lf)
          position = .lineStart
          index += 1
        } else {
          position = .middle
        }
      case .middle:
        let end = endOfRun(bytes, from: index)
        output.append(contentsOf: UnsafeRawBufferPointer(rebasing: bytes[index..<end]))
        if bytes[end - 1] == cr {
          position = .afterCR
        } else if bytes[end - 1] == lf, end - index >= 2, bytes[end - 2] == cr {
          position = .lineStart
        }
        index = end
      }
    }
    return Progress(taken: index, finished: false)
  }

  /// The end of the longest run that can be copied as it is: up to a dot that starts a line, or all there is.
  private func endOfRun(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Int {
    var from = start
    while from < bytes.count {
      let rest = UnsafeRawBufferPointer(rebasing: bytes[from...])
      guard let found = rest.firstIndexOfLF() else { return bytes.count }
      let next = from + found + 1
      let startsLine = next - 2 >= start && bytes[next - 2] == UInt8(ascii: "\r")
      if startsLine, next < bytes.count, bytes[next] == UInt8(ascii: ".") { return next }
      from = next
    }
    return bytes.count
  }
}
