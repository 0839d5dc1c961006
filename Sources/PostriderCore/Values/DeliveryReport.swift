import FoundationEssentials

/// What a delivery report says became of a message (RFC 3464 section 2.3.3).
public enum DeliveryAction: String, Hashable, Sendable, Codable, CaseIterable {
  /// It could not be delivered: it bounced.
  case failed
  /// Not yet, but it is tried on.
  case delayed
  /// It arrived.
  case delivered
  /// It went on to a server that sends no reports.
  case relayed
  /// It arrived and was sent on to several others.
  case expanded
}

/// A delivery report on one recipient, as people see it.
public struct DeliveryReport: Hashable, Sendable, Codable {
  /// What became of the message.
  public var action: DeliveryAction
  /// The enhanced status code, such as `5.1.1` (RFC 3463).
  public var status: String?
  /// The last server's words, ≤500 characters, written by others.
  public var diagnostic: String?
  /// The message that brought the report.
  public var emailID: EmailID?
  /// When that was stored.
  public var reportedAt: Date?

  /// Describes a report.
  public init(
    action: DeliveryAction, status: String? = nil, diagnostic: String? = nil, emailID: EmailID? = nil,
    reportedAt: Date? = nil
  ) {
    self.action = action
    self.status = status
    self.diagnostic = diagnostic
    self.emailID = emailID
    self.reportedAt = reportedAt
  }

  /// Whether the message came back.
  public var isBounce: Bool { action == .failed }
}

/// What a received delivery status notification says, before it is matched with what we sent (RFC 3464).
public struct DeliveryNotification: Hashable, Sendable {
  /// One recipient of it.
  public struct Recipient: Hashable, Sendable {
    /// The addresses it may be known by: original and final recipient, lower case, most telling first.
    public var addresses: [String]
    /// What became of the message for it.
    public var report: DeliveryReport

    /// Describes a recipient.
    public init(addresses: [String], report: DeliveryReport) {
      self.addresses = addresses
      self.report = report
    }
  }

  /// The Message-ID of the message that it is about, without angle brackets; `nil` when it does not say.
  public var messageID: String?
  /// Each recipient that it names, at most 500.
  public var recipients: [Recipient]

  /// Describes a notification.
  public init(messageID: String?, recipients: [Recipient]) {
    self.messageID = messageID
    self.recipients = recipients
  }
}
