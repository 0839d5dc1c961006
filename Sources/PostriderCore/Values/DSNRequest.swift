/// When a recipient's server shall report (RFC 3461 section 4.1).
public enum DSNCondition: String, Hashable, Sendable, Codable, CaseIterable {
  /// Not at all, not even a failure. Stands alone.
  case never
  /// After delivery.
  case success
  /// When it could not be delivered.
  case failure
  /// When it takes longer than usual.
  case delay
}

/// How much of the message comes back with a report of a failure (RFC 3461 section 4.3).
public enum DSNReturn: String, Hashable, Sendable, Codable, CaseIterable {
  /// All of it.
  case full
  /// Only its header.
  case headers
}

/// Which delivery reports a sender asks for. A server without the extension DSN takes the message without it.
public struct DSNRequest: Hashable, Sendable, Codable {
  /// When; `nil` or empty for what the servers do by themselves: failures.
  public var notify: [DSNCondition]?
  /// What comes back; `nil` for the server's choice.
  public var returns: DSNReturn?

  /// Describes a request.
  public init(notify: [DSNCondition]? = nil, returns: DSNReturn? = nil) {
    self.notify = notify
    self.returns = returns
  }

  /// Notes what contradicts itself.
  public func check(at pointer: String, _ problems: inout FieldProblems) {
    let notify = notify ?? []
    if notify.contains(.never), notify.count > 1 {
      problems.add("\(pointer)/notify", "not-allowed", "`never` stands alone (RFC 3461 section 4.1)")
    }
    if Set(notify).count < notify.count { problems.add("\(pointer)/notify", "duplicate", "must name each word once") }
  }
}
