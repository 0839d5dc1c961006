/// Takes comma-separated values (RFC 4180) apart as they arrive.
///
/// Lines end with CRLF, LF or CR. A field with commas, quotes or line ends stands in quotes, a quote in it is doubled. A
/// byte order mark at the beginning is skipped, empty lines are counted and left out.
struct CSVReader {
  /// A line of the file; several physical ones where a field holds line ends.
  struct Record: Hashable {
    /// 1 for the header.
    var row: Int
    var fields: [[UInt8]]
    /// Whether quotes stand where none may be.
    var isMalformed: Bool
  }

  enum SyntaxError: Error, Hashable {
    /// A quote that was opened in this row is not closed until the end of the file.
    case unclosedQuote(row: Int)
    /// A row with more octets than ``maximumRecordOctets``.
    case tooLong(row: Int)
  }

  /// The most octets of one row: a forgotten quote must not swallow the file.
  static let maximumRecordOctets = 65_536

  private enum State {
    case fieldBegins
    case bare
    case quoted
    /// After a quote inside of quotes: the end of the field, or the first of two.
    case quoteInQuotes
  }

  private static let mark: [UInt8] = [0xEF, 0xBB, 0xBF]

  private var state = State.fieldBegins
  private var field: [UInt8] = []
  private var fields: [[UInt8]] = []
  private var isMalformed = false
  private var hadQuotes = false
  private var row = 1
  private var octets = 0
  private var endedWithCR = false
  /// How many octets of the byte order mark may still come; `nil` after the beginning.
  private var markPosition: Int? = 0

  /// Takes the next octets and hands over the rows that they complete.
  mutating func append(_ bytes: some Sequence<UInt8>, _ take: (Record) throws -> Void) throws {
    for byte in bytes {
      if let position = markPosition {
        let isMark = byte == Self.mark[position]
        markPosition = isMark && position < 2 ? position + 1 : nil
        if isMark { continue }
      }
      try consume(byte, take)
    }
  }

  /// The end of the file. Throws ``SyntaxError``.
  mutating func finish(_ take: (Record) throws -> Void) throws {
    if state == .quoted { throw SyntaxError.unclosedQuote(row: row) }
    if octets > 0 { try endRecord(take) }
  }

  private mutating func consume(_ byte: UInt8, _ take: (Record) throws -> Void) throws {
    if byte == 0x0A, endedWithCR {
      endedWithCR = false
      return
    }
    endedWithCR = false
    octets += 1
    if octets > Self.maximumRecordOctets { throw SyntaxError.tooLong(row: row) }
    switch (state, byte) {
    case (.quoted, UInt8(ascii: "\"")): state = .quoteInQuotes
    case (.quoted, _): field.append(byte)
    case (_, UInt8(ascii: ",")): endField()
    case (_, 0x0A), (_, 0x0D):
      octets -= 1
      endedWithCR = byte == 0x0D
      try endRecord(take)
    case (.fieldBegins, UInt8(ascii: "\"")):
      hadQuotes = true
      state = .quoted
    case (.quoteInQuotes, UInt8(ascii: "\"")):
      field.append(byte)
      state = .quoted
    case (.quoteInQuotes, _):
      isMalformed = true
      field.append(byte)
      state = .bare
    case (_, _):
      if byte == UInt8(ascii: "\"") { isMalformed = true }
      field.append(byte)
      state = .bare
    }
  }

  private mutating func endField() {
    fields.append(field)
    field.removeAll(keepingCapacity: true)
    state = .fieldBegins
  }

  private mutating func endRecord(_ take: (Record) throws -> Void) throws {
    endField()
    let isEmpty = fields.count == 1 && fields[0].isEmpty && !hadQuotes
    if !isEmpty { try take(Record(row: row, fields: fields, isMalformed: isMalformed)) }
    fields.removeAll(keepingCapacity: true)
    (isMalformed, hadQuotes, octets) = (false, false, 0)
    row += 1
  }
}
