import PostriderCore

extension JSONShape {
  /// `EmailSettingsChange`.
  static let emailSettingsChange = JSONShape.object([
    Field("defaultProfileID", .identifier), Field("pollingIntervalMinutes", .integer),
    Field("incomingMethod", choice(SyncMethod.self)), Field("outgoingMethod", choice(SyncMethod.self)),
    Field("actMethod", choice(SyncMethod.self)), Field("approvedUsersOnly", .boolean),
    Field("approvedQueuesOnly", .boolean), Field("alertLevels", .array(of: choice(AlertLevel.self), count: 0...3)),
    Field("notifiesMailboxOwners", .boolean), Field("maximumMessageOctets", .integer),
    Field("maximumAttachmentOctets", .integer), Field("messagesPerPoll", .integer),
    Field("sessionDeadlineSeconds", .integer),
    Field("clears", .array(of: choice(EmailSettingsChange.Clearable.self), count: 0...1)),
    Field("version", .identifier),
  ])

  /// How a profile is deleted.
  static let profileDeletion = JSONShape.object([Field("confirmsUnlinking", .boolean), Field("dryRun", .boolean)])

  private static let ids = Field("ids", .array(of: .identifier, count: 1...1_000), isRequired: true)

  /// `MailboxDeletionRequest`.
  static let mailboxDeletion = JSONShape.object([
    ids, Field("confirmsUnsentMail", .boolean), Field("dryRun", .boolean),
  ])

  /// `MailboxEditRequest`.
  static let mailboxEditRequest = JSONShape.object([
    ids, Field("change", mailboxChange, isRequired: true), Field("dryRun", .boolean),
  ])

  /// `DefaultsRequest`.
  static let defaultsRequest = JSONShape.object([ids, Field("dryRun", .boolean), Field("test", .boolean)])

  /// Which alerts are deleted.
  static let alertDeletion = JSONShape.object([
    Field("wall", .choice(["mine", "mailbox", "profile"])), Field("mailboxID", .identifier),
    Field("profileID", .identifier), Field("level", choice(AlertLevel.self)), Field("code", .string),
    Field("includeResolved", .boolean), Field("confirms", .boolean), Field("dryRun", .boolean),
  ])
}
