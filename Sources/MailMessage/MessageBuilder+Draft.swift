import FoundationEssentials
import PostriderCore

extension MessageBuilder {
  /// A message as a person submitted it, checked before. Blind copies stand nowhere in it.
  public init(_ draft: OutgoingDraft, from address: String, messageID: String, date: Date) {
    self.init(
      from: EmailAddress(address: address), to: draft.to.map { EmailAddress(address: $0) },
      cc: (draft.cc ?? []).map { EmailAddress(address: $0) }, subject: draft.subject, text: draft.text,
      html: draft.html, messageID: messageID, date: date,
      headers: (draft.autoSubmitted.map { [("Auto-Submitted", $0.rawValue)] } ?? [])
        + (draft.headers ?? []).map { ($0.name, $0.value) })
    replyTo = (draft.replyTo ?? []).map { EmailAddress(address: $0) }
    inReplyTo = draft.inReplyTo.map(MessageIDRules.bare)
    // An answer without a known conversation refers to what it answers (RFC 5322 section 3.6.4).
    references = (draft.references ?? draft.inReplyTo.map { [$0] } ?? []).map(MessageIDRules.bare)
    attachments = (draft.attachments ?? []).map {
      MessageAttachment(fileName: $0.fileName, contentType: $0.contentType, content: .bytes(Array($0.content)))
    }
  }
}
