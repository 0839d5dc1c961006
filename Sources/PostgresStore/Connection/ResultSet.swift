import FoundationEssentials
import PostriderCore

/// The rows of one statement, copied out of libpq before the connection's actor returns.
struct ResultSet: Sendable {
  /// How many rows there are.
  var count = 0
  /// How many rows the statement changed.
  var affected = 0
  /// Columns in a row.
  var columns = 0
  /// Type number of each column.
  var types: [UInt32] = []
  /// All fields one after the other.
  var bytes: [UInt8] = []
  /// Where each field begins, row by row.
  var starts: [Int] = []
  /// How long each field is; −1 for NULL.
  var lengths: [Int32] = []

  /// A row.
  subscript(row: Int) -> Row { Row(set: self, row: row) }
  /// The first row.
  var first: Row? { count > 0 ? Row(set: self, row: 0) : nil }
  /// Turns each row into a value.
  func map<T>(_ transform: (inout Row) throws -> T) rethrows -> [T] {
    var values: [T] = []
    values.reserveCapacity(count)
    for index in 0..<count {
      var row = Row(set: self, row: index)
      values.append(try transform(&row))
    }
    return values
  }
}

/// Reads the columns of a row one after the other, in the order of the SELECT list.
struct Row {
  private let set: ResultSet
  private let row: Int
  private var column = 0

  init(set: ResultSet, row: Int) {
    self.set = set
    self.row = row
  }

  private mutating func field() throws(StoreError) -> (range: Range<Int>, type: UInt32)? {
    guard column < set.columns else { throw Row.misfit("the row has only \(set.columns) columns") }
    let index = row * set.columns + column
    defer { column += 1 }
    let length = Int(set.lengths[index])
    guard length >= 0 else { return nil }
    return (set.starts[index]..<set.starts[index] + length, set.types[column])
  }

  private static func misfit(_ what: String) -> StoreError {
    .schema(reason: "the database answered with other columns than expected: \(what); run `postrider migrate`")
  }

  private mutating func required<T>(_ value: T?) throws(StoreError) -> T {
    guard let value else { throw Row.misfit("column \(column) is NULL") }
    return value
  }

  private func integer(_ range: Range<Int>) -> UInt64 {
    var value: UInt64 = 0
    for index in range { value = value << 8 | UInt64(set.bytes[index]) }
    return value
  }

  mutating func intOrNil() throws(StoreError) -> Int64? {
    guard let (range, type) = try field() else { return nil }
    let value = integer(range)
    switch type {
    case PostgresValue.TypeID.int8: return Int64(bitPattern: value)
    case PostgresValue.TypeID.int4: return Int64(Int32(truncatingIfNeeded: value))
    case PostgresValue.TypeID.int2: return Int64(Int16(truncatingIfNeeded: value))
    default: throw Row.misfit("column \(column) is no integer")
    }
  }
  mutating func int() throws(StoreError) -> Int64 { try required(try intOrNil()) }

  mutating func idOrNil<Entity>() throws(StoreError) -> Identifier<Entity>? { try intOrNil().map { Identifier($0) } }
  mutating func id<Entity>() throws(StoreError) -> Identifier<Entity> { Identifier(try int()) }

  mutating func double() throws(StoreError) -> Double {
    guard let (range, type) = try field() else { return try required(nil) }
    guard type == PostgresValue.TypeID.double else { throw Row.misfit("column \(column) is no double") }
    return Double(bitPattern: integer(range))
  }

  mutating func boolOrNil() throws(StoreError) -> Bool? {
    guard let (range, type) = try field() else { return nil }
    guard type == PostgresValue.TypeID.bool else { throw Row.misfit("column \(column) is no boolean") }
    return set.bytes[range.lowerBound] != 0
  }
  mutating func bool() throws(StoreError) -> Bool { try required(try boolOrNil()) }

  mutating func microsecondsOrNil() throws(StoreError) -> Int64? {
    guard let (range, type) = try field() else { return nil }
    guard type == PostgresValue.TypeID.time else { throw Row.misfit("column \(column) is no time") }
    return Int64(bitPattern: integer(range)) + PostgresValue.epochSeconds * 1_000_000
  }
  mutating func microseconds() throws(StoreError) -> Int64 { try required(try microsecondsOrNil()) }

  mutating func dateOrNil() throws(StoreError) -> Date? {
    try microsecondsOrNil().map { Date(microsecondsSince1970: $0) }
  }
  mutating func date() throws(StoreError) -> Date { try required(try dateOrNil()) }

  mutating func bytesOrNil() throws(StoreError) -> [UInt8]? {
    guard let (range, _) = try field() else { return nil }
    return Array(set.bytes[range])
  }
  mutating func bytes() throws(StoreError) -> [UInt8] { try required(try bytesOrNil()) }

  mutating func textOrNil() throws(StoreError) -> String? {
    guard let (range, type) = try field() else { return nil }
    // The binary form of jsonb is one version octet and the text.
    let skip = type == PostgresValue.TypeID.jsonb && !range.isEmpty ? 1 : 0
    return String(decoding: set.bytes[(range.lowerBound + skip)..<range.upperBound], as: UTF8.self)
  }
  mutating func text() throws(StoreError) -> String { try required(try textOrNil()) }

  /// A word of a closed list.
  mutating func word<Word: RawRepresentable<String>>() throws(StoreError) -> Word {
    let text = try text()
    guard let word = Word(rawValue: text) else { throw Row.misfit("`\(text)` is not a known \(Word.self)") }
    return word
  }

  /// A JSON document.
  mutating func json<Value: Decodable>() throws -> Value {
    try JSONDecoder().decode(Value.self, from: Data(try text().utf8))
  }
  mutating func jsonOrNil<Value: Decodable>() throws -> Value? {
    guard let text = try textOrNil() else { return nil }
    return try JSONDecoder().decode(Value.self, from: Data(text.utf8))
  }
}

extension PostgresValue {
  /// The text of a JSON document; bind it as `$n::jsonb`.
  static func jsonText(_ value: some Encodable) throws -> String {
    String(decoding: try JSONEncoder().encode(value), as: UTF8.self)
  }
}
