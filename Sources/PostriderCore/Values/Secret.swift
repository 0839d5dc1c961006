/// A value that must never be printed: a password, a token, a key.
///
/// Prints, logs, encodes and reflects as `«secret»`. Reading it is always the visible word ``revealed``.
public struct Secret: Hashable, Sendable, CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
  /// The value itself. Pass it on, never store or print it.
  public let revealed: String

  /// Hides a value.
  public init(_ value: String) { revealed = value }

  /// `«secret»`.
  public var description: String { "«secret»" }
  /// `«secret»`.
  public var debugDescription: String { "«secret»" }
  /// Empty, so that `dump` and crash reports show nothing.
  public var customMirror: Mirror { Mirror(self, children: [:]) }
}

extension Secret: Decodable {
  /// Reads a bare string, as in a request's `password` field.
  public init(from decoder: any Decoder) throws {
    revealed = try decoder.singleValueContainer().decode(String.self)
  }
}
