import FoundationEssentials
import MailProtocols
import PostriderCore

/// What a server says of itself, and what is known of its provider.
extension PollSession {
  /// How much this session fetches. Throws `pop3.quota` when nothing may be fetched for today.
  func budget() async throws -> RetrievalBudget {
    let settings = task.settings
    // Half of the time is for fetching: what was fetched has to be stored and removed, and a session that meets its
    // deadline is a failure.
    var budget = RetrievalBudget(
      octets: context.configuration.octetsPerPoll, until: .now + settings.sessionDeadline / 2)
    guard let perDay = settings.provider.maximumReceivedOctetsPerDay else { return budget }
    let received = try await context.store.receivedOctets(
      since: Date(timeIntervalSinceNow: -86_400), mailbox: settings.mailboxID, organization: settings.organizationID)
    guard received < perDay else {
      throw Failure(
        .pop3Quota, context: "\(received) octets were fetched within 24 hours, allowed are \(perDay)")
    }
    budget.octets = min(budget.octets, perDay - received)
    return budget
  }

  /// Notes what the server wants of its clients.
  func note(_ capabilities: POP3Capabilities) {
    let expires = capabilities.expireDays == 0
    let hidesFetched = task.settings.provider.listsPartly && !task.isRecent
    progress.note {
      $0.loginDelaySeconds = capabilities.loginDelaySeconds
      $0.expiresAtOnce = expires && !task.settings.deleteAfterProcessing
      $0.forgetsFetched = expires || hidesFetched
    }
  }

  /// A provider that lists a part of the mail at a time is asked again until it has nothing new. What it lists of the last
  /// days, whatever was fetched of it, is all at once.
  func noteDrain() {
    guard task.settings.provider.listsPartly, !task.isRecent else { return }
    progress.note { if $0.stored > 0 { $0.moreMail = true } }
  }
}

extension SessionTask {
  /// Whether Gmail's recent mode is used: the last 30 days, fetched before or not. It is asked for in the login name.
  var isRecent: Bool {
    settings.provider == .gmail && settings.incomingCredentials?.userName.lowercased().hasPrefix("recent:") == true
  }

  /// Whether stored messages are removed from the server. In recent mode DELE would remove what other programs see too.
  var removesStored: Bool { settings.deleteAfterProcessing && !isRecent }

  /// What people should know although nothing failed.
  func alerts(_ counts: SessionProgress.Counts) -> [AlertChange] {
    guard counts.expiresAtOnce, counts.stored > 0 else { return [] }
    return [
      .raise(
        AlertDraft(
          level: .warning, code: "pop3.expire",
          text: "The server may remove messages as soon as they were fetched (EXPIRE 0).",
          remedy:
            "Postrider has stored them. Where other programs read this mailbox too, let the provider keep mail on "
            + "the server.",
          parameters: ["direction": Direction.incoming.rawValue]))
    ]
  }
}
