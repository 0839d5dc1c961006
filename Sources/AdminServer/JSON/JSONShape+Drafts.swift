import PostriderCore

extension JSONShape {
  static func choice<Value: CaseIterable & RawRepresentable>(_: Value.Type) -> JSONShape
  where Value.RawValue == String {
    .choice(Value.allCases.map(\.rawValue))
  }

  /// `ServerDraft`.
  static let serverDraft = JSONShape.object([
    Field("host", .string), Field("port", .integer), Field("tls", choice(TLSMode.self)),
    Field("credentials", choice(CredentialSource.self)), Field("mechanism", choice(AuthenticationMechanism.self)),
    Field("userName", .string), Field("password", .secret), Field("loginAs", .string),
  ])

  /// `SendQuota`.
  static let sendQuota = JSONShape.object([
    Field("messagesPerMinute", .integer), Field("messagesPerDay", .integer), Field("recipientsPerDay", .integer),
    Field("recipientsPerMessage", .integer), Field("answersPerHour", .integer),
  ])

  /// `ProfileDraft`.
  static let profileDraft = JSONShape.object([
    Field("name", .string, isRequired: true), Field("description", .string),
    Field("type", choice(ProfileType.self), isRequired: true), Field("isDefault", .boolean),
    Field("incoming", serverDraft), Field("outgoing", serverDraft), Field("useSameSettingsForOutgoing", .boolean),
    Field("processEmailFrom", .date), Field("minimumPollingIntervalMinutes", .integer),
    Field("maximumConcurrentConnections", .integer), Field("connectionTimeoutSeconds", .integer),
    Field("maximumFailedLogins", .integer), Field("caCertificatesPEM", .string), Field("sendQuota", sendQuota),
    Field("sharedSendQuota", sendQuota),
  ])

  /// `OwnerDraft`.
  static let ownerDraft = JSONShape.object([
    Field("kind", choice(OwnerKind.self), isRequired: true), Field("name", .string), Field("id", .identifier),
  ])

  /// `MailboxDraft`.
  static let mailboxDraft = JSONShape.object([
    Field("address", .string, isRequired: true), Field("owner", ownerDraft), Field("profileID", .identifier),
    Field("incomingMethod", choice(SyncMethod.self)), Field("outgoingMethod", choice(SyncMethod.self)),
    Field("allowsCredentials", .boolean), Field("userName", .string), Field("password", .secret),
    Field("processEmailFrom", .date), Field("deleteAfterProcessing", .boolean),
  ])

  /// The rows of a bulk verb.
  static let bulkRequest = JSONShape.object([
    Field("ids", .array(of: .identifier, count: 1...1_000), isRequired: true)
  ])

  /// Mailboxes whose server renumbered their mail, and what becomes of it.
  static let reimportRequest = JSONShape.object([
    Field("ids", .array(of: .identifier, count: 1...1_000), isRequired: true),
    Field("choice", choice(ReimportChoice.self), isRequired: true),
  ])

  /// Messages in quarantine for a bulk verb; with `dryRun` nothing is changed.
  static let quarantineRequest = JSONShape.object([
    Field("ids", .array(of: .identifier, count: 1...1_000), isRequired: true), Field("dryRun", .boolean),
  ])

  /// `OAuthClientDraft`.
  static let oauthClientDraft = JSONShape.object([
    Field("flow", choice(OAuthFlow.self)), Field("clientID", .string, isRequired: true),
    Field("clientSecret", .secret), Field("privateKey", .secret), Field("tenant", .string),
    Field("authorizationURL", .string), Field("tokenURL", .string), Field("revocationURL", .string),
    Field("scopes", .array(of: .string, count: 0...50)),
  ])

  /// `WebhookDraft`.
  static let webhookDraft = JSONShape.object([Field("url", .string, isRequired: true), Field("description", .string)])

  /// `ProfileChange`.
  static let profileChange = JSONShape.object([
    Field("name", .string), Field("description", .string), Field("isDefault", .boolean),
    Field("incoming", serverDraft), Field("outgoing", serverDraft), Field("useSameSettingsForOutgoing", .boolean),
    Field("processEmailFrom", .date), Field("minimumPollingIntervalMinutes", .integer),
    Field("maximumConcurrentConnections", .integer), Field("weight", .integer),
    Field("connectionTimeoutSeconds", .integer), Field("maximumFailedLogins", .integer),
    Field("caCertificatesPEM", .string), Field("isActive", .boolean), Field("sendQuota", sendQuota),
    Field("sharedSendQuota", sendQuota), Field("failureNoticeTo", .string), Field("ownerID", .identifier),
    Field("clears", .array(of: choice(ProfileChange.Clearable.self), count: 0...2)),
    Field("confirmsNewTests", .boolean), Field("version", .identifier),
  ])

  /// `MailboxChange`.
  static let mailboxChange = JSONShape.object([
    Field("address", .string), Field("profileID", .identifier), Field("isActive", .boolean),
    Field("incomingMethod", choice(SyncMethod.self)), Field("outgoingMethod", choice(SyncMethod.self)),
    Field("allowsCredentials", .boolean), Field("userName", .string), Field("password", .secret),
    Field("processEmailFrom", .date), Field("deleteAfterProcessing", .boolean), Field("sendQuota", sendQuota),
    Field("clears", .array(of: choice(MailboxChange.Clearable.self), count: 0...4)), Field("version", .identifier),
  ])

  /// `AlertMailChange`.
  static let alertMailChange = JSONShape.object([
    Field("isOn", .boolean), Field("mailboxID", .identifier),
    Field("recipients", .array(of: .string, count: 0...AlertMailChange.maximumRecipients)),
    Field("levels", .array(of: choice(AlertLevel.self), count: 0...3)),
  ])

  /// What is paused or resumed; `id` names the profile or mailbox.
  static let pauseRequest = JSONShape.object([
    Field("scope", .choice(["organization", "profile", "mailbox"]), isRequired: true), Field("id", .identifier),
  ])

  /// Poison jobs by their written ids.
  static let releaseRequest = JSONShape.object([
    Field("jobs", .array(of: .string, count: 1...1_000), isRequired: true)
  ])

  /// `OutgoingDraft`.
  static let outgoingDraft = JSONShape.object([
    Field("mailboxID", .identifier, isRequired: true),
    Field("to", .array(of: .string, count: 1...OutgoingDraft.maximumRecipients), isRequired: true),
    Field("cc", .array(of: .string, count: 0...OutgoingDraft.maximumRecipients)),
    Field("bcc", .array(of: .string, count: 0...OutgoingDraft.maximumRecipients)),
    Field("replyTo", .array(of: .string, count: 0...OutgoingDraft.maximumReplyTo)),
    Field("subject", .string, isRequired: true), Field("text", .string), Field("html", .string),
    Field("attachments", .array(of: outgoingAttachment, count: 0...OutgoingDraft.maximumAttachments)),
    Field("inReplyTo", .string),
    Field("references", .array(of: .string, count: 0...OutgoingDraft.maximumReferences)),
    Field("headers", .array(of: outgoingHeader, count: 0...OutgoingDraft.maximumHeaders)),
    Field("autoSubmitted", choice(AutoSubmitted.self)), Field("priority", choice(OutgoingPriority.self)),
    Field("sendAfter", .date), Field("idempotencyKey", .string), Field("hold", .boolean),
    Field("notification", dsnRequest),
  ])

  /// `DSNRequest`.
  private static let dsnRequest = JSONShape.object([
    Field("notify", .array(of: choice(DSNCondition.self), count: 0...4)), Field("returns", choice(DSNReturn.self)),
  ])

  private static let outgoingAttachment = JSONShape.object([
    Field("fileName", .string, isRequired: true), Field("contentType", .string),
    Field("content", .base64, isRequired: true),
  ])

  private static let outgoingHeader = JSONShape.object([
    Field("name", .string, isRequired: true), Field("value", .string, isRequired: true),
  ])

  /// How a message is tried again.
  static let retryRequest = JSONShape.object([Field("resendUncertain", .boolean)])

  /// A verb that needs no more words.
  static let nothing = JSONShape.object([])
}
