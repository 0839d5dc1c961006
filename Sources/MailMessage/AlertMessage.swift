import FoundationEssentials
import PostriderCore

/// The mail that tells people of alerts.
///
/// It says that a program wrote it (RFC 3834), so that no other program answers; and nothing in it comes from a stranger
/// but servers' words, which are made harmless before they are stored.
public enum AlertMessage {
  /// More are only counted.
  private static let shown = 50

  /// Composes it. Throws ``MessageError``.
  public static func submission(of digest: AlertDigest, date: Date = Date()) throws -> OutgoingSubmission {
    let sender = InternationalAddress.wireForm(digest.sender) ?? digest.sender
    let recipients = AddressRules.distinct(digest.recipients.map { InternationalAddress.wireForm($0) ?? $0 })
    let messageID = MessageBuilder.newMessageID(for: sender)
    let subject = subject(digest.alerts)
    let builder = MessageBuilder(
      from: EmailAddress(name: "Postrider", address: digest.sender),
      to: digest.recipients.map { EmailAddress(address: $0) }, subject: subject, text: text(digest.alerts),
      messageID: messageID, date: date,
      // The second is what Exchange's responders look at.
      headers: [("Auto-Submitted", AutoSubmitted.generated.rawValue), ("X-Auto-Response-Suppress", "All")])
    return OutgoingSubmission(
      mailboxID: digest.mailboxID, sender: sender, recipients: recipients, subject: subject, messageID: messageID,
      raw: .bytes(try builder.build()), encoding: builder.encoding, priority: .high)
  }

  /// `[Postrider] error: auth.rejected for a@example.com`, or how many of which level.
  private static func subject(_ alerts: [Alert]) -> String {
    if let only = alerts.first, alerts.count == 1 {
      return "[Postrider] \(only.level.rawValue): \(only.code)" + (only.mailboxAddress.map { " for \($0)" } ?? "")
    }
    let counts = AlertLevel.allCases.reversed().compactMap { level -> String? in
      let count = alerts.count { $0.level == level }
      return count == 0 ? nil : "\(count) × \(level.rawValue)"
    }
    return "[Postrider] \(alerts.count) alerts: \(counts.joined(separator: ", "))"
  }

  private static func text(_ alerts: [Alert]) -> String {
    var lines: [String] = []
    for alert in alerts.prefix(shown) {
      let subject = alert.mailboxAddress ?? alert.profileID.map { "server profile \($0)" } ?? ""
      lines.append("\(alert.level.rawValue.uppercased())  \(alert.code)  \(subject)")
      lines.append("  \(alert.text)")
      if let remedy = alert.remedy { lines.append("  What to do: \(remedy)") }
      let times = alert.count == 1 ? "once" : "\(alert.count) times"
      lines.append("  \(times) since \(alert.firstSeen.formatted(.iso8601))")
      lines.append("")
    }
    if alerts.count > shown { lines += ["and \(alerts.count - shown) more.", ""] }
    lines.append("All open alerts: postrider alert list")
    lines.append("Who gets this mail and about what: postrider alert mail")
    return lines.joined(separator: "\n") + "\n"
  }
}
