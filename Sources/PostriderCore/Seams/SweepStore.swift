/// What was begun in administration and is too much for one transaction: the leading scheduler carries it out in steps
/// that hold no lock for long. Two of them at once do no harm. Calls throw ``StoreError``.
public protocol SweepStore: Sendable {
  /// Deleted mailboxes that may still have jobs in the queue, each with every profile under which they may be, at most
  /// `limit`.
  func deletedMailboxes(limit: Int) async throws -> [MailboxMove]

  /// Notes that these have none any more.
  func finishWithdrawal(of mailboxes: [MailboxID]) async throws

  /// Carries out the next step of what is there to be swept: mail of deleted mailboxes, mailboxes of profiles that are
  /// being deleted, schedules that follow from changed settings. Returns whether there is more to do at once.
  func sweep() async throws -> Bool
}
