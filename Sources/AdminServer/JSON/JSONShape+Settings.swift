import PostriderCore

extension JSONShape {
  /// `EmailSettingsChange`.
  static let emailSettingsChange = JSONShape.object([
    Field("defaultProfileID", .identifier, "The profile that new mailboxes get."),
    Field(
      "pollingIntervalMinutes", .integer, "How often mail is fetched where the profile does not say.", in: 1...1_440),
    Field("incomingMethod", choice(SyncMethod.self), "Whether new mailboxes fetch mail."),
    Field("outgoingMethod", choice(SyncMethod.self), "Whether new mailboxes send mail."),
    Field(
      "actMethod", choice(SyncMethod.self),
      "Whether new mailboxes synchronize appointments, contacts and tasks; none where the profile cannot."),
    Field("approvedUsersOnly", .boolean, "Whether mailboxes of users need an approval."),
    Field("approvedQueuesOnly", .boolean, "Whether mailboxes of shared queues need an approval."),
    Field("alertLevels", .array(of: choice(AlertLevel.self), count: 0...3), "The levels that raise alerts."),
    Field(
      "notifiesMailboxOwners", .boolean, "Whether errors of a profile stand on the walls of its mailboxes' owners too."),
    Field("maximumMessageOctets", .integer, "Larger messages are not fetched."),
    Field("maximumAttachmentOctets", .integer, "Larger attachments are not stored; their message is marked."),
    Field("messagesPerPoll", .integer, "How many messages a session fetches at most.", in: 1...100_000),
    Field("sessionDeadlineSeconds", .integer, "How long a session may take.", in: 10...86_400),
    Field(
      "clears", .array(of: choice(EmailSettingsChange.Clearable.self), count: 0...1),
      "What loses its value; what is left out stays."),
    Field("version", .identifier, "The version that the change is meant for; refused when there is a newer one."),
  ])

  /// How a profile is deleted.
  static let profileDeletion = JSONShape.object([
    Field("confirmsUnlinking", .boolean, "That its mailboxes may lose their profile; needed when it has some."),
    Field("dryRun", .boolean, "Only say what would be done.", standard: "false"),
  ])

  private static let ids = Field(
    "ids", .array(of: .identifier, count: 1...1_000), isRequired: true,
    "What it is done to; one that is named twice counts once.")

  /// `MailboxDeletionRequest`.
  static let mailboxDeletion = JSONShape.object([
    ids,
    Field("confirmsUnsentMail", .boolean, "That mail which waits to be sent may be lost; needed when there is some."),
    Field("dryRun", .boolean, "Only say what would be done.", standard: "false"),
  ])

  /// `MailboxEditRequest`.
  static let mailboxEditRequest = JSONShape.object([
    ids, Field("change", mailboxChange, isRequired: true, "What is changed in each of them."),
    Field("dryRun", .boolean, "Only say what would be done.", standard: "false"),
  ])

  /// `DefaultsRequest`.
  static let defaultsRequest = JSONShape.object([
    ids, Field("dryRun", .boolean, "Only say what would be done.", standard: "false"),
    Field("test", .boolean, "Whether those that changed are tested and enabled.", standard: "true"),
  ])

  /// Which alerts are deleted.
  static let alertDeletion = JSONShape.object([
    Field("wall", .choice(["mine", "mailbox", "profile"]), "Only alerts on this wall."),
    Field("mailboxID", .identifier, "Only alerts of this mailbox, or of its wall."),
    Field("profileID", .identifier, "Only alerts of this server profile, or of its wall."),
    Field("level", choice(AlertLevel.self), "Only alerts of this level."),
    Field("code", .string, "Only alerts with this code."),
    Field("includeResolved", .boolean, "Also those whose cause is gone.", standard: "false"),
    Field("confirms", .boolean, "That they may be deleted for good; needed when there are some."),
    Field("dryRun", .boolean, "Only say what would be done.", standard: "false"),
  ])
}
