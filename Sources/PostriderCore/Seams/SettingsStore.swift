/// What the administration of settings, deletions and alerts needs of PostgreSQL. As ``AdminStore``: every call works in
/// the principal's organization alone, writes its audit row in the same transaction, and throws ``StoreError``.
public protocol SettingsStore: Sendable {
  /// The organization's settings.
  func emailSettings(for principal: Principal) async throws -> EmailSettings
  /// Changes them. Running workers keep to them from their next session on. Throws `invalid` with everything that is
  /// wrong, ``StoreError/stale`` when ``EmailSettingsChange/version`` is not the present one.
  func updateEmailSettings(_ change: EmailSettingsChange, by principal: Principal) async throws -> EmailSettings

  /// Deletes a profile and leaves its mailboxes without one. Where there are any and nobody confirmed it, throws
  /// ``StoreError/conflict(code:message:)`` `has-mailboxes` with their number. With `dryRun` only says how many.
  func deleteProfile(
    _ id: ProfileID, confirmsUnlinking: Bool, dryRun: Bool, by principal: Principal
  ) async throws -> ProfileDeletion
  /// Deletes mailboxes with their mail, runs and grants; one answer per row, in the order asked. Nothing of a session
  /// that is under way is written any more. What they stored is deleted in the background.
  func deleteMailboxes(_ request: MailboxDeletionRequest, by principal: Principal) async throws -> [MailboxDeletion]

  /// Changes mailboxes in one transaction, without a test; one answer per row, in the order asked. Rows that are refused
  /// keep the others from nothing.
  func editMailboxes(_ request: MailboxEditRequest, by principal: Principal) async throws -> [MailboxEditResult]
  /// Gives mailboxes the default profile and the methods of the organization's settings, in one transaction, without a
  /// test. Throws `no-default-profile` when there is none.
  func applyDefaults(to ids: [MailboxID], dryRun: Bool, by principal: Principal) async throws -> AppliedDefaults

  /// One alert.
  func alert(_ id: AlertID, for principal: Principal) async throws -> Alert
  /// Closes alerts that somebody has seen to; what happens again raises a new one. One answer per row.
  func dismissAlerts(_ ids: [AlertID], by principal: Principal) async throws -> [AlertResult]
  /// Deletes alerts for good; returns how many. With `dryRun` only counts them.
  func deleteAlerts(_ filter: AlertFilter, dryRun: Bool, by principal: Principal) async throws -> Int
}

/// The answer of an alert to a bulk verb.
public typealias AlertResult = RowResult<Alert>
