import FoundationEssentials
import NIOCore
import PostriderCore

/// JSON as the API speaks it: camelCase keys, ISO 8601 dates with milliseconds in UTC, absent optionals left out.
public enum APICoding {
  /// Writes a value. Throws `EncodingError` for numbers that JSON cannot hold.
  public static func data(_ value: some Encodable) throws -> Data {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    encoder.dateEncodingStrategy = .custom { date, encoder in
      var container = encoder.singleValueContainer()
      try container.encode(text(date))
    }
    return try encoder.encode(value)
  }

  /// Reads a value, as a client does with an answer. Throws `DecodingError`.
  public static func decode<Value: Decodable>(_ type: Value.Type, from data: Data) throws -> Value {
    let decoder = JSONDecoder()
    decoder.dateDecodingStrategy = .custom { decoder in
      let container = try decoder.singleValueContainer()
      guard let date = date(try container.decode(String.self)) else {
        throw DecodingError.dataCorruptedError(in: container, debugDescription: "must be a date in ISO 8601")
      }
      return date
    }
    return try decoder.decode(type, from: data)
  }

  /// `2026-03-01T08:00:00.000Z`.
  public static func text(_ date: Date) -> String {
    date.formatted(Date.ISO8601FormatStyle(includingFractionalSeconds: true))
  }

  /// Reads a date and time with a time zone, with or without a fraction of a second; `nil` for anything else.
  public static func date(_ text: String) -> Date? {
    guard text.utf8.count <= 40 else { return nil }
    // Two formats are tried; a failure of the first says nothing.
    if let date = try? Date.ISO8601FormatStyle(includingFractionalSeconds: true).parse(text) { return date }
    return try? Date.ISO8601FormatStyle().parse(text)
  }

  static func encode(_ value: some Encodable) throws -> ByteBuffer { ByteBuffer(bytes: try data(value)) }
}
