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
  /// See what mailboxes may send and have sent; for a shared quota that is what all of them have.
  case readQuotas = "quotas.read"
  /// Connect mailboxes by OAuth, and take the connection back.
  case connectMailboxes = "mailboxes.connect"
  /// See batches and how far they are.
  case readBatches = "batches.read"
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
  /// See users and shared queues.
  case readUsers = "users.read"
  /// Create, change and delete users and shared queues, set passwords, and manage everybody's tokens. One's own tokens and
  /// password need no right.
  case manageUsers = "users.manage"
  /// See what everybody did.
  case readAudit = "audit.read"
}

extension Role {
  /// What a person of this role may do (feature A3). This table is the only one.
  public var rights: Set<Right> {
    switch self {
    case .administrator: Set(Right.allCases)
    case .mailboxManager:
      [
        .readProfiles, .readMailboxes, .readQuotas, .writeMailboxes, .connectMailboxes, .readBatches, .readAlerts,
        .manageAlerts, .readRuns, .readEmails, .sendEmails, .manageQuarantine, .readQueue, .readUsers,
      ]
    // Approves and rejects only; the list of mailboxes is needed to know which.
    case .approver: [.readMailboxes, .readQuotas, .readBatches, .approveMailboxes]
    case .reader:
      [
        .readProfiles, .readMailboxes, .readQuotas, .readBatches, .readAlerts, .readRuns, .readEmails, .readQueue,
        .readUsers,
      ]
    // Of the own mailboxes alone: the store shows no others.
    case .owner: [.readMailboxes, .connectMailboxes, .readAlerts, .readRuns]
    }
  }

  /// Whether a person of this role may give another role to somebody: it can do nothing that this one cannot.
  public func covers(_ other: Role) -> Bool {
    other.rights.isSubset(of: rights) && (other.seesOnlyOwn || !seesOnlyOwn)
  }
}
