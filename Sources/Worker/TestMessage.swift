import FoundationEssentials
import MailMessage
import PostriderCore

/// The message that a test sends from a mailbox to itself.
public enum TestMessage {
  /// Composes it.
  ///
  /// - Parameters:
  ///   - address: the mailbox.
  ///   - id: what makes its Message-ID unique, without the domain.
  ///   - mark: the value of the header that says whose test it is.
  public static func compose(to address: String, id: String, mark: String) throws -> [UInt8] {
    let domain = address.split(separator: "@").last.map(String.init) ?? "localhost"
    return try MessageBuilder(
      from: EmailAddress(name: "Postrider", address: address), to: [EmailAddress(address: address)],
      subject: "Your mailbox is now connected",
      text: """
        This message was sent by Postrider from the mailbox \(address) to itself.

        It shows that outgoing mail works. You do not need to do anything.

        """, html: nil, messageID: "\(id)@\(domain)", date: Date(),
      headers: [("Auto-Submitted", "auto-generated"), ("X-Postrider-Test", mark)]
    ).build()
  }
}
