/// What the system knows of a mailbox's appointments, contacts and tasks.
///
/// Nothing carries them over POP3 and SMTP, so they are never tested: the status stays `not-run`.
public struct ACTState: Hashable, Sendable, Codable {
  /// What was chosen for the mailbox.
  public var method: SyncMethod
  /// What really happens with its profile.
  public var effectiveMethod: SyncMethod
  /// Always ``DirectionStatus/notRun``: only a test could write another one.
  public var status: DirectionStatus
  /// Why ``effectiveMethod`` is not ``method``: ``unsupportedProfile`` or `no-profile`; `nil` when it is.
  public var reason: String?

  /// The mailbox's profile cannot carry them.
  public static let unsupportedProfile = "act.unsupported-profile"

  /// The state that follows from what was chosen and from the type of the profile.
  public init(method: SyncMethod, on type: ProfileType?) {
    self.method = method
    status = .notRun
    let refusal = type.map { $0.carriesACT ? nil : Self.unsupportedProfile } ?? "no-profile"
    effectiveMethod = refusal == nil ? method : .none
    reason = method == .none ? nil : refusal
  }
}

extension ProfileType {
  /// Whether mailboxes of this type can have their appointments, contacts and tasks synchronized. Mail of every type is
  /// received over POP3 and sent over SMTP, and neither carries them.
  public var carriesACT: Bool {
    switch self {
    case .gmail, .pop3SMTP, .microsoft365: false
    }
  }
}
