import FoundationEssentials

/// A file that goes with an outgoing message, as a person submits it.
public struct OutgoingAttachment: Hashable, Sendable, Codable {
  /// Its name, any characters but line breaks and slashes, 1 to 255 characters.
  public var fileName: String
  /// `type/subtype`; guessed from the name when left out.
  public var contentType: String?
  /// The octets; base64 in JSON.
  public var content: Data

  /// Describes a file.
  public init(fileName: String, contentType: String? = nil, content: Data) {
    self.fileName = fileName
    self.contentType = contentType
    self.content = content
  }
}

/// A header field of the submitter's own.
public struct OutgoingHeader: Hashable, Sendable, Codable {
  /// Begins with `X-`.
  public var name: String
  /// One line, ≤998 characters.
  public var value: String

  /// Describes a field.
  public init(name: String, value: String) {
    self.name = name
    self.value = value
  }
}

/// What a program says of the mail it writes, so that nobody answers it automatically (RFC 3834 section 5).
public enum AutoSubmitted: String, Hashable, Sendable, Codable, CaseIterable {
  /// Written by a program of its own accord.
  case generated = "auto-generated"
  /// A program's answer to a message.
  case replied = "auto-replied"
}

/// An outgoing message as a person submits it.
public struct OutgoingDraft: Hashable, Sendable, Codable {
  /// The mailbox it is sent from.
  public var mailboxID: MailboxID
  /// The recipients named in `To:`; at least one.
  public var to: [String]
  /// The recipients named in `Cc:`.
  public var cc: [String]?
  /// Recipients named nowhere in the message.
  public var bcc: [String]?
  /// Where answers go instead of the mailbox, ≤20.
  public var replyTo: [String]?
  /// The subject, ≤998 characters.
  public var subject: String
  /// The text body.
  public var text: String?
  /// The HTML body: alone, or as the other form of ``text``.
  public var html: String?
  /// The files, ≤100.
  public var attachments: [OutgoingAttachment]?
  /// The Message-ID of the message that this one answers, with or without angle brackets.
  public var inReplyTo: String?
  /// The conversation, oldest first, ≤100; ``inReplyTo`` when left out.
  public var references: [String]?
  /// Fields of the submitter's own, ≤50.
  public var headers: [OutgoingHeader]?
  /// Says that a program wrote it.
  public var autoSubmitted: AutoSubmitted?
  /// Which messages go first; default normal.
  public var priority: OutgoingPriority?
  /// Not before this time.
  public var sendAfter: Date?
  /// The submitter's own key, ≤200 characters.
  public var idempotencyKey: String?
  /// Keeps it as a draft.
  public var hold: Bool?
  /// Which delivery reports are asked for.
  public var notification: DSNRequest?

  /// Describes a message.
  public init(
    mailboxID: MailboxID, to: [String], cc: [String]? = nil, bcc: [String]? = nil, replyTo: [String]? = nil,
    subject: String, text: String? = nil, html: String? = nil, attachments: [OutgoingAttachment]? = nil,
    inReplyTo: String? = nil, references: [String]? = nil, headers: [OutgoingHeader]? = nil,
    autoSubmitted: AutoSubmitted? = nil, priority: OutgoingPriority? = nil, sendAfter: Date? = nil,
    idempotencyKey: String? = nil, hold: Bool? = nil, notification: DSNRequest? = nil
  ) {
    self.notification = notification
    self.mailboxID = mailboxID
    self.to = to
    self.cc = cc
    self.bcc = bcc
    self.replyTo = replyTo
    self.subject = subject
    self.text = text
    self.html = html
    self.attachments = attachments
    self.inReplyTo = inReplyTo
    self.references = references
    self.headers = headers
    self.autoSubmitted = autoSubmitted
    self.priority = priority
    self.sendAfter = sendAfter
    self.idempotencyKey = idempotencyKey
    self.hold = hold
  }

  /// At most so many recipients in all.
  public static let maximumRecipients = 500
  /// At most so many files.
  public static let maximumAttachments = 100
  /// At most so many fields of the submitter's own.
  public static let maximumHeaders = 50
  /// At most so many messages of a conversation.
  public static let maximumReferences = 100
  /// At most so many addresses for answers.
  public static let maximumReplyTo = 20

  /// Every envelope recipient once, in the order given.
  public var recipients: [String] { AddressRules.distinct(to + (cc ?? []) + (bcc ?? [])) }

  /// Throws ``StoreError/invalid(_:)`` with everything that is wrong. No CR, LF or NUL reaches a header or a command.
  public func check() throws(StoreError) {
    var problems = FieldProblems()
    for (field, list) in [("to", to), ("cc", cc ?? []), ("bcc", bcc ?? []), ("replyTo", replyTo ?? [])] {
      for (index, address) in list.enumerated() {
        AddressRules.check(address, at: "/\(field)/\(index)", isOthers: true, &problems)
      }
    }
    if to.isEmpty { problems.add("/to", "required", "must name at least one recipient") }
    if recipients.count > Self.maximumRecipients {
      problems.add("/to", "too-many", "a message has at most \(Self.maximumRecipients) recipients")
    }
    problems.check(subject, at: "/subject", maximum: 998)
    if let idempotencyKey { problems.check(idempotencyKey, at: "/idempotencyKey", maximum: 200, minimum: 1) }
    for (field, body) in [("text", text ?? ""), ("html", html ?? "")] where body.utf8.contains(0) {
      problems.add("/\(field)", "control-character", "must not contain NUL")
    }
    if text == nil, html == nil, (attachments ?? []).isEmpty {
      problems.add("/text", "required", "a message needs text, html or an attachment")
    }
    notification?.check(at: "/notification", &problems)
    checkLimits(&problems)
    checkReferences(&problems)
    for (index, header) in (headers ?? []).enumerated() { header.check(at: "/headers/\(index)", &problems) }
    for (index, file) in (attachments ?? []).enumerated() { file.check(at: "/attachments/\(index)", &problems) }
    try problems.throwIfAny()
  }

  private func checkLimits(_ problems: inout FieldProblems) {
    let lists = [
      ("replyTo", replyTo?.count, Self.maximumReplyTo), ("references", references?.count, Self.maximumReferences),
      ("headers", headers?.count, Self.maximumHeaders), ("attachments", attachments?.count, Self.maximumAttachments),
    ]
    for (field, count, maximum) in lists where count ?? 0 > maximum {
      problems.add("/\(field)", "too-many", "there may be at most \(maximum)")
    }
  }

  private func checkReferences(_ problems: inout FieldProblems) {
    if let inReplyTo { MessageIDRules.check(inReplyTo, at: "/inReplyTo", &problems) }
    for (index, id) in (references ?? []).enumerated() {
      MessageIDRules.check(id, at: "/references/\(index)", &problems)
    }
  }
}

extension OutgoingHeader {
  /// Notes what is wrong with it: only `X-` fields, so that none can stand twice or change how the message is read.
  public func check(at pointer: String, _ problems: inout FieldProblems) {
    let isName = name.utf8.allSatisfy { (0x21...0x7E).contains($0) && $0 != UInt8(ascii: ":") }
    if !(3...76).contains(name.utf8.count) || !isName || !name.lowercased().hasPrefix("x-") {
      problems.add(
        "\(pointer)/name", "not-a-header", "must begin with X- and have 3 to 76 printable ASCII characters, no colon")
    }
    problems.check(value, at: "\(pointer)/value", maximum: 998)
  }
}

extension OutgoingAttachment {
  /// Notes what is wrong with its name and type.
  public func check(at pointer: String, _ problems: inout FieldProblems) {
    problems.check(fileName, at: "\(pointer)/fileName", maximum: 255, minimum: 1)
    if fileName.contains(where: { $0 == "/" || $0 == "\\" }) || fileName == "." || fileName == ".." {
      problems.add("\(pointer)/fileName", "not-a-file-name", "must be a name without folders")
    }
    guard let contentType else { return }
    let parts = contentType.split(separator: "/", omittingEmptySubsequences: false)
    // RFC 2045 section 5.1: a token has no blanks, control characters or specials.
    let isToken = { (part: Substring) in
      (1...100).contains(part.utf8.count)
        && part.utf8.allSatisfy { (0x21...0x7E).contains($0) && !"()<>@,;:\\\"/[]?=".utf8.contains($0) }
    }
    if parts.count != 2 || !parts.allSatisfy(isToken) {
      problems.add("\(pointer)/contentType", "not-a-content-type", "must be type/subtype such as application/pdf")
    } else if ["multipart", "message"].contains(parts[0].lowercased()) {
      // They must not be base64 (RFC 2046 section 5.2.1), and readers would look into them.
      problems.add(
        "\(pointer)/contentType", "not-a-file",
        "must be the type of a file; attach a message as application/octet-stream"
      )
    }
  }
}
