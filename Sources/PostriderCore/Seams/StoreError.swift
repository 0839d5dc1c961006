/// Why the store could not do what was asked.
public enum StoreError: Error, Hashable, Sendable, CustomStringConvertible {
  /// PostgreSQL cannot be reached or the connection was lost; the call may or may not have been carried out.
  case unavailable(reason: String)
  /// There is no such row in this organization.
  case notFound(String)
  /// A rule of the data forbids it: a name or address that is taken, a state that does not allow it.
  case conflict(code: String, message: String)
  /// Values of a request are not allowed; each with a JSON pointer to the field.
  case invalid([FieldProblem])
  /// The row was changed by somebody else since it was read.
  case stale
  /// The schema is older or newer than this program can work with; the text says what to do.
  case schema(reason: String)
  /// A stored secret cannot be read: the key with this id is not in the key ring.
  case missingKey(id: String)
  /// PostgreSQL refused a statement: a bug. Carries SQLSTATE and message, never values.
  case statement(sqlState: String, message: String)

  /// The reason in words.
  public var description: String {
    switch self {
    case .unavailable(let reason): "PostgreSQL cannot be reached: \(reason)"
    case .notFound(let what): "there is no such \(what)"
    case .conflict(_, let message): message
    case .invalid(let problems): problems.map(\.description).joined(separator: "; ")
    case .stale: "it was changed by somebody else in the meantime"
    case .schema(let reason): reason
    case .missingKey(let id): "the encryption key \(id) is not in the key ring"
    case .statement(let state, let message): "PostgreSQL refused a statement (\(state)): \(message)"
    }
  }
}

/// One wrong field of a request.
public struct FieldProblem: Error, Hashable, Sendable, Codable, CustomStringConvertible {
  /// A JSON pointer (RFC 6901) to the field: `/incoming/port`.
  public var pointer: String
  /// Stable: `required`, `too-long`, `out-of-range`, `unknown`, `control-character`, …
  public var code: String
  /// What is wrong and what would be right.
  public var message: String

  /// Describes a wrong field.
  public init(_ pointer: String, _ code: String, _ message: String) {
    self.pointer = pointer
    self.code = code
    self.message = message
  }

  /// Pointer and message.
  public var description: String { "\(pointer): \(message)" }
}
