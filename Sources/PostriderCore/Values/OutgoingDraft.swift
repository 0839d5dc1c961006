import FoundationEssentials

/// A message that a person or program asks to send: what the API reads.
public struct OutgoingDraft: Hashable, Sendable, Codable {
  /// The mailbox it is sent from.
  public var mailboxID: MailboxID
  /// The recipients named in `To:`; at least one.
  public var to: [String]
  /// The recipients named in `Cc:`.
  public var cc: [String]?
  /// Recipients named nowhere in the message.
  public var bcc: [String]?
  /// The subject, ≤998 characters.
  public var subject: String
  /// The text body.
  public var text: String
  /// The same as HTML.
  public var html: String?
  /// Which messages go first; default normal.
  public var priority: OutgoingPriority?
  /// Not before this time.
  public var sendAfter: Date?
  /// The submitter's own key, ≤200 characters.
  public var idempotencyKey: String?
  /// Keeps it as a draft.
  public var hold: Bool?

  /// Describes a message.
  public init(
    mailboxID: MailboxID, to: [String], cc: [String]? = nil, bcc: [String]? = nil, subject: String, text: String,
    html: String? = nil, priority: OutgoingPriority? = nil, sendAfter: Date? = nil, idempotencyKey: String? = nil,
    hold: Bool? = nil
  ) {
    self.mailboxID = mailboxID
    self.to = to
    self.cc = cc
    self.bcc = bcc
    self.subject = subject
    self.text = text
    self.html = html
    self.priority = priority
    self.sendAfter = sendAfter
    self.idempotencyKey = idempotencyKey
    self.hold = hold
  }

  /// At most so many recipients in all.
  public static let maximumRecipients = 500

  /// Every envelope recipient once, in the order given.
  public var recipients: [String] {
    var seen: Set<String> = []
    return (to + (cc ?? []) + (bcc ?? [])).filter { seen.insert($0.lowercased()).inserted }
  }

  /// Throws ``StoreError/invalid(_:)`` with everything that is wrong. No CR, LF or NUL reaches a header or a command.
  public func check() throws(StoreError) {
    var problems = FieldProblems()
    for (field, list) in [("to", to), ("cc", cc ?? []), ("bcc", bcc ?? [])] {
      for (index, address) in list.enumerated() { AddressRules.check(address, at: "/\(field)/\(index)", &problems) }
    }
    if to.isEmpty { problems.add("/to", "required", "must name at least one recipient") }
    if recipients.count > Self.maximumRecipients {
      problems.add("/to", "too-many", "a message has at most \(Self.maximumRecipients) recipients")
    }
    problems.check(subject, at: "/subject", maximum: 998)
    if let idempotencyKey { problems.check(idempotencyKey, at: "/idempotencyKey", maximum: 200, minimum: 1) }
    for (field, body) in [("text", text), ("html", html ?? "")] where body.utf8.contains(0) {
      problems.add("/\(field)", "control-character", "must not contain NUL")
    }
    try problems.throwIfAny()
  }
}
