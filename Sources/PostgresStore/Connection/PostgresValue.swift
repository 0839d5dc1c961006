import FoundationEssentials
import PostriderCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// A parameter, sent in PostgreSQL's binary format with its type, so that nothing is ever quoted or escaped.
enum PostgresValue: Sendable {
  case int(Int64?)
  case double(Double?)
  case bool(Bool?)
  case text(String?)
  case bytes([UInt8]?)
  case time(Date?)
  case microseconds(Int64?)
  case ints([Int64?])
  case doubles([Double?])
  case bools([Bool?])
  case texts([String?])
  case bytesArray([[UInt8]?])
  case times([Date?])

  /// Seconds from 1970 to PostgreSQL's own epoch, 2000-01-01.
  static let epochSeconds: Int64 = 946_684_800

  /// An identifier.
  static func id<Entity>(_ id: Identifier<Entity>?) -> PostgresValue { .int(id?.value) }
  /// A column of identifiers.
  static func ids<Entity>(_ ids: [Identifier<Entity>]) -> PostgresValue { .ints(ids.map(\.value)) }

  /// Type numbers of `pg_type`.
  enum TypeID {
    static let bool: UInt32 = 16
    static let bytes: UInt32 = 17
    static let int8: UInt32 = 20
    static let int2: UInt32 = 21
    static let int4: UInt32 = 23
    static let double: UInt32 = 701
    static let text: UInt32 = 25
    static let time: UInt32 = 1184
    static let jsonb: UInt32 = 3802
  }

  /// The parameter's type number.
  var typeID: UInt32 {
    switch self {
    case .int: TypeID.int8
    case .double: TypeID.double
    case .bool: TypeID.bool
    case .text: TypeID.text
    case .bytes: TypeID.bytes
    case .time, .microseconds: TypeID.time
    case .ints: 1016
    case .doubles: 1022
    case .bools: 1000
    case .texts: 1009
    case .bytesArray: 1001
    case .times: 1185
    }
  }

  /// Appends the binary form; `false` for NULL.
  func encode(into bytes: inout [UInt8]) throws(StoreError) -> Bool {
    switch self {
    case .int(let value): return try Self.scalar(value, &bytes, Self.put)
    case .double(let value): return try Self.scalar(value, &bytes, Self.put)
    case .bool(let value): return try Self.scalar(value, &bytes, Self.put)
    case .text(let value): return try Self.scalar(value, &bytes, Self.put)
    case .bytes(let value): return try Self.scalar(value, &bytes, Self.put)
    case .time(let value): return try Self.scalar(value, &bytes, Self.put)
    case .microseconds(let value):
      return try Self.scalar(value.map { $0 - Self.epochSeconds * 1_000_000 }, &bytes, Self.put)
    case .ints(let values): try Self.array(values, TypeID.int8, &bytes, Self.put)
    case .doubles(let values): try Self.array(values, TypeID.double, &bytes, Self.put)
    case .bools(let values): try Self.array(values, TypeID.bool, &bytes, Self.put)
    case .texts(let values): try Self.array(values, TypeID.text, &bytes, Self.put)
    case .bytesArray(let values): try Self.array(values, TypeID.bytes, &bytes, Self.put)
    case .times(let values): try Self.array(values, TypeID.time, &bytes, Self.put)
    }
    return true
  }

  private static func scalar<T>(
    _ value: T?, _ bytes: inout [UInt8], _ put: (T, inout [UInt8]) throws(StoreError) -> Void
  ) throws(StoreError) -> Bool {
    guard let value else { return false }
    try put(value, &bytes)
    return true
  }

  private static func array<T>(
    _ values: [T?], _ elementType: UInt32, _ bytes: inout [UInt8],
    _ put: (T, inout [UInt8]) throws(StoreError) -> Void
  ) throws(StoreError) {
    putInteger(Int32(values.isEmpty ? 0 : 1), &bytes)
    putInteger(Int32(1), &bytes)
    putInteger(elementType, &bytes)
    if values.isEmpty { return }
    putInteger(Int32(values.count), &bytes)
    putInteger(Int32(1), &bytes)
    for value in values {
      guard let value else {
        putInteger(Int32(-1), &bytes)
        continue
      }
      let start = bytes.count
      putInteger(Int32(0), &bytes)
      try put(value, &bytes)
      let length = UInt32(bytes.count - start - 4)
      for index in 0..<4 { bytes[start + index] = UInt8(truncatingIfNeeded: length >> (24 - 8 * UInt32(index))) }
    }
  }

  private static func putInteger(_ value: some FixedWidthInteger, _ bytes: inout [UInt8]) {
    withUnsafeBytes(of: value.bigEndian) { bytes.append(contentsOf: $0) }
  }

  private static func put(_ value: Int64, _ bytes: inout [UInt8]) { putInteger(value, &bytes) }
  private static func put(_ value: Double, _ bytes: inout [UInt8]) { putInteger(value.bitPattern, &bytes) }
  private static func put(_ value: Bool, _ bytes: inout [UInt8]) { bytes.append(value ? 1 : 0) }
  private static func put(_ value: [UInt8], _ bytes: inout [UInt8]) { bytes.append(contentsOf: value) }

  private static func put(_ value: String, _ bytes: inout [UInt8]) throws(StoreError) {
    let start = bytes.count
    bytes.append(contentsOf: value.utf8)
    // PostgreSQL cannot hold NUL in a text; refusing here keeps the transaction alive and names the reason.
    let holdsNUL = bytes.withUnsafeBytes { all in
      all.baseAddress.map { memchr($0 + start, 0, all.count - start) != nil } ?? false
    }
    if holdsNUL {
      throw .invalid([FieldProblem("", "control-character", "texts must not contain NUL characters")])
    }
  }

  private static func put(_ value: Date, _ bytes: inout [UInt8]) {
    putInteger(value.microsecondsSince1970 - epochSeconds * 1_000_000, &bytes)
  }
}

extension Date {
  /// Microseconds since 1970, PostgreSQL's own resolution; clamped to the years 1 to 9999.
  var microsecondsSince1970: Int64 {
    let seconds = min(max(timeIntervalSince1970, -62_135_596_800), 253_402_300_799)
    return Int64((seconds * 1_000_000).rounded())
  }

  /// A moment in PostgreSQL's own resolution.
  init(microsecondsSince1970 microseconds: Int64) {
    self.init(timeIntervalSince1970: Double(microseconds) / 1_000_000)
  }
}
