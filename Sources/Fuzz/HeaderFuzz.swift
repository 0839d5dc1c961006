import PostriderCore

@testable import MailMessage

/// A message's header and structure, and what is made of it for people: valid UTF-8 without NUL, no control characters,
/// within the bounds.
func fuzzHeader(_ bytes: UnsafeRawBufferPointer) {
  var limits = MessageLimits()
  limits.maximumParts = 20
  limits.maximumTextOctets = 4_096
  limits.maximumHeaderLines = 200
  limits.maximumAttachmentOctets = 4_096
  guard let parsed = try? MessageReader.parse(Array(bytes), limits: limits) else {
    preconditionFailure("octets in memory can always be read")
  }
  let envelope = parsed.envelope
  let lines =
    [envelope.subject, envelope.messageID ?? "", envelope.inReplyTo ?? ""] + envelope.references
    + (envelope.from + envelope.to + envelope.cc + envelope.replyTo).flatMap { [$0.address, $0.name ?? ""] }
    + parsed.attachments.flatMap { [$0.record.fileName ?? "", $0.record.contentType] }
  for line in lines {
    precondition(
      line.unicodeScalars.allSatisfy { $0.value >= 0x20 && !(0x7F..<0xA0).contains($0.value) }, "a control character")
    precondition(line.unicodeScalars.allSatisfy { !(0x202A...0x202E).contains($0.value) }, "a turn of the direction")
  }
  for body in [parsed.text, parsed.html] {
    guard let body else { continue }
    precondition(body.utf8.count <= limits.maximumTextOctets && !body.utf8.contains(0) && !body.utf8.contains(0x0D))
  }
  precondition(parsed.attachments.count <= limits.maximumParts && parsed.problems.count <= 50)
  for attachment in parsed.attachments {
    precondition(Int64(attachment.content?.count ?? 0) <= limits.maximumAttachmentOctets)
    precondition(attachment.record.dropped == (attachment.content == nil))
  }
  // The sanitiser by itself, with whatever the octets are as text.
  let text = String(decoding: bytes, as: UTF8.self)
  precondition(TextSanitizer.line(text, maximum: 50).unicodeScalars.count <= 50)
  precondition(!TextSanitizer.word(text, maximum: 50).contains(" "))
  precondition(TextSanitizer.body(bytes, maximum: 100).utf8.count <= 100)
  if let name = TextSanitizer.fileName(text) {
    precondition(!name.isEmpty && !name.contains("/") && !name.contains("\\") && name != "." && name != "..")
  }
}
