import FoundationEssentials
import MailMessage
import PostriderCore

/// The message that a test sends from a mailbox to itself.
public enum TestMessage {
  /// A Message-ID at the address's domain, without angle brackets.
  ///
  /// - Parameter unique: what makes it unique.
  public static func messageID(_ unique: String, of address: String) -> String {
    "\(unique)@\(address.split(separator: "@").last ?? "localhost")"
  }

  /// Composes it.
  ///
  /// - Parameters:
  ///   - address: the mailbox.
  ///   - messageID: without angle brackets.
  ///   - mark: the value of the header that says whose test it is.
  public static func compose(to address: String, messageID: String, mark: String) throws -> [UInt8] {
    try MessageBuilder(
      from: EmailAddress(name: "Postrider", address: address), to: [EmailAddress(address: address)],
      subject: "Your mailbox is now connected",
      text: """
        This message was sent by Postrider from the mailbox \(address) to itself.

        It shows that outgoing mail works. You do not need to do anything.

        """, html: nil, messageID: messageID, date: Date(),
      headers: [("Auto-Submitted", "auto-generated"), ("X-Postrider-Test", mark)]
    ).build()
  }
}
