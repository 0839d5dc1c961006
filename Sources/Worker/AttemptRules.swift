import FoundationEssentials
import MailProtocols
import PostriderCore

/// From a server's answer to the state of a message and its recipients (errors table, SMTP).
struct AttemptRules {
  /// What is only temporary is tried for two days.
  static let patience: TimeInterval = 48 * 3_600

  let message: ClaimedMessage
  var now = Date()

  /// Whether a session cannot or must not go on with the next message.
  static func endsSession(_ failure: Failure) -> Bool {
    failure.scope != .message || failure.code == .smtpLost || failure.code == .smtpUncertain
      || failure.code == .runAborted
  }

  /// Whether what a recipient was refused for stands for the whole account, such as a used up allowance or a blocked
  /// sender: many servers say at RCPT what they think of MAIL.
  static func endsSending(_ failure: Failure) -> Bool { failure.scope != .message }

  /// After an answer for each recipient.
  func answered(_ delivery: SMTPDelivery) -> AttemptResult {
    let recipients = delivery.recipients.map { recipient -> OutgoingRecipient in
      guard let failure = recipient.failure else {
        // Accepted counts only when the message was: with no recipient left nothing is sent.
        return OutgoingRecipient(address: recipient.address, state: delivery.isAccepted ? .accepted : .pending)
      }
      return OutgoingRecipient(
        address: recipient.address, state: Self.endsSending(failure) || isWorthRetrying(failure) ? .pending : .failed,
        failure: failure)
    }
    let failures = recipients.compactMap(\.failure)
    let failure = failures.first(where: Self.endsSending) ?? failures.first
    guard recipients.contains(where: { $0.state == .pending }) else {
      // A quota cut the message: the others follow as soon as it lets them.
      if !message.others.isEmpty {
        return AttemptResult(state: .pendingSend, recipients: recipients, failure: failure, nextTryAt: now)
      }
      let accepted = message.accepted + recipients.count { $0.state == .accepted }
      let failed = message.failed + recipients.count { $0.state == .failed }
      return AttemptResult(
        state: failed == 0 ? .sent : accepted > 0 ? .partlySent : .failed, recipients: recipients, failure: failure)
    }
    // The server took its fill of recipients: the others follow at once.
    let split =
      delivery.isAccepted
      && recipients.allSatisfy { $0.state != .pending || $0.failure?.code == .smtpTooManyRecipients }
    return AttemptResult(
      state: .pendingSend, recipients: recipients, failure: failure,
      nextTryAt: split || failure.map(Self.endsSending) ?? false ? now : nextTry(failure))
  }

  /// After the message as a whole was refused, or could not be handed over.
  func failed(_ failure: Failure) -> AttemptResult {
    if failure.failureClass == .uncertain { return all(.uncertain, .uncertain, failure) }
    // A fault of mailbox, profile or server says nothing of the message: it waits as long as that lasts.
    if failure.code == .runAborted || failure.scope != .message || isWorthRetrying(failure) {
      let next = failure.scope == .message && failure.code != .runAborted ? nextTry(failure) : now
      return AttemptResult(state: .pendingSend, failure: failure, nextTryAt: next)
    }
    return all(message.accepted > 0 ? .partlySent : .failed, .failed, failure)
  }

  private func all(_ state: OutgoingState, _ recipient: RecipientState, _ failure: Failure) -> AttemptResult {
    // Nobody wonders about those who were not in the attempt that ended uncertainly: they got nothing.
    let decided = message.recipients + (state == .uncertain ? [] : message.others)
    return AttemptResult(
      state: state,
      recipients: decided.map { OutgoingRecipient(address: $0, state: recipient, failure: failure) },
      failure: failure)
  }

  private func isWorthRetrying(_ failure: Failure) -> Bool {
    switch failure.failureClass {
    case .transient, .contention, .throttle, .quota:
      now.timeIntervalSince(message.waitsSince) < Self.patience
    case .credential, .permanent, .message, .recipient, .uncertain, .attack: false
    }
  }

  private func nextTry(_ failure: Failure?) -> Date {
    var generator = SystemRandomNumberGenerator()
    let delay = Backoff().delay(afterFailures: max(1, message.attempt), using: &generator)
    return now.addingTimeInterval(max(delay / .seconds(1), Double(min(failure?.retryAfterSeconds ?? 0, 86_400))))
  }
}
