import PostriderCore

/// One thing that a person may or may not do.
public enum Right: String, Hashable, Sendable, Codable, CaseIterable {
  /// See server profiles.
  case readProfiles = "profiles.read"
  /// Create and change server profiles.
  case writeProfiles = "profiles.write"
  /// See mailboxes.
  case readMailboxes = "mailboxes.read"
  /// Create and change mailboxes; test and poll them.
  case writeMailboxes = "mailboxes.write"
  /// Approve and reject the mail of mailboxes.
  case approveMailboxes = "mailboxes.approve"
  /// See alerts.
  case readAlerts = "alerts.read"
  /// Dismiss and delete alerts.
  case manageAlerts = "alerts.manage"
  /// See runs and their steps.
  case readRuns = "runs.read"
  /// See stored mail, and what is in quarantine.
  case readEmails = "emails.read"
  /// Send mail from mailboxes, and take it back while it waits.
  case sendEmails = "emails.send"
  /// Have messages in quarantine tried again, and discard them.
  case manageQuarantine = "quarantine.manage"
  /// Create, test and delete webhooks, and see what they were sent.
  case manageWebhooks = "webhooks.manage"
  /// See the queue's numbers and where jobs are.
  case readQueue = "queue.read"
  /// Pause and resume profiles and everything, let poison jobs run again, repair the queue. A single mailbox is paused
  /// with ``writeMailboxes``.
  case manageQueue = "queue.manage"
}

extension Role {
  /// What a person of this role may do (feature A3). This table is the only one.
  public var rights: Set<Right> {
    switch self {
    case .administrator: Set(Right.allCases)
    case .mailboxManager:
      [
        .readProfiles, .readMailboxes, .writeMailboxes, .readAlerts, .manageAlerts, .readRuns, .readEmails, .sendEmails,
        .manageQuarantine, .readQueue,
      ]
    // Approves and rejects only; the list of mailboxes is needed to know which.
    case .approver: [.readMailboxes, .approveMailboxes]
    case .reader: [.readProfiles, .readMailboxes, .readAlerts, .readRuns, .readEmails, .readQueue]
    }
  }
}
