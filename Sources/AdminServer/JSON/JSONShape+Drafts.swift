import PostriderCore

extension JSONShape {
  static func choice<Value: CaseIterable & RawRepresentable>(_: Value.Type) -> JSONShape
  where Value.RawValue == String {
    .choice(Value.allCases.map(\.rawValue))
  }

  /// Fields that mean the same in several bodies.
  private static let tls = Field(
    "tls", choice(TLSMode.self),
    "How the connection is protected; none only where the deployment property allowNonTLSMail is on.",
    standard: "implicit")
  private static let mechanism = Field(
    "mechanism", choice(AuthenticationMechanism.self),
    """
    How to authenticate; what the credentials cannot prove is refused. auto takes the strongest that server and \
    credentials know; with a template in loginAs it is plain.
    """,
    standard: "auto")
  private static let serverUserName = Field(
    "userName", .string, "The account's user name; only with credentials profile, and required there.", in: 1...250)
  private static let serverPassword = Field(
    "password", .secret, "The account's password; only with credentials profile.", in: 0...250)
  private static let loginAs = Field(
    "loginAs", .string,
    """
    How the profile's account opens a mailbox, incoming only: authzid, or a template that names {mailbox} once \
    and may name {user}.
    """,
    example: "{mailbox}*{user}")
  private static let version = Field(
    "version", .identifier,
    """
    The version that the change is meant for; refused with 409 stale when there is a newer one. The header \
    If-Match does the same and answers 412. Left out: changed in any case.
    """)

  /// `ServerDraft`.
  static let serverDraft = JSONShape.object([
    Field(
      "host", .string, "The server's name or address; required for pop3-smtp, else the provider's.", in: 1...253,
      example: "mail.example.com"),
    Field("port", .integer, "Its port; the usual one of protocol and tls when left out.", in: 1...65_535),
    tls,
    Field(
      "credentials", choice(CredentialSource.self),
      """
      Whose credentials are used; mailbox when left out, oauth for gmail and microsoft365. anonymous is \
      refused, integrated works for outgoing alone.
      """),
    mechanism, serverUserName, serverPassword, loginAs,
  ])

  /// `ServerChange`.
  private static let serverChange = JSONShape.object([
    Field("host", .string, "The server's name or address.", in: 1...253, example: "mail.example.com"),
    Field(
      "port", .integer,
      "Its port. Left out, a port that was the usual one of the former tls becomes the usual one of the new.",
      in: 1...65_535),
    Field(tls.name, tls.shape, tls.help),
    Field(
      "credentials", choice(CredentialSource.self),
      "Whose credentials are used; others than before forget mechanism, userName, password and loginAs."),
    Field(mechanism.name, mechanism.shape, "How to authenticate; what the credentials cannot prove is refused."),
    serverUserName, serverPassword, loginAs,
  ])

  /// `SendQuota`.
  static let sendQuota = JSONShape.object([
    Field("messagesPerMinute", .integer, "Messages within a minute; no limit when left out.", in: 1...100_000),
    Field("messagesPerDay", .integer, "Messages within 24 hours; no limit when left out.", in: 1...10_000_000),
    Field(
      "recipientsPerDay", .integer, "Recipients of all messages within 24 hours; no limit when left out.",
      in: 1...10_000_000),
    Field(
      "recipientsPerMessage", .integer,
      "Recipients of one message as it is handed over; one with more goes in parts. No limit when left out.",
      in: 1...10_000),
    Field(
      "answersPerHour", .integer,
      "Answers and automatic messages to one address within an hour; one more is kept as a draft.", in: 1...10_000,
      standard: "\(SendQuota.standardAnswersPerHour)"),
  ])

  /// `ProfileDraft`.
  static let profileDraft = JSONShape.object([
    Field(
      "name", .string, isRequired: true, "Its name, unique in the organization.", in: 1...100, example: "Example mail"),
    Field("description", .string, "What people should know about it.", in: 0...2_000),
    Field(
      "type", choice(ProfileType.self), isRequired: true, "The provider; what is left out below fills itself in.",
      example: "gmail"),
    Field("isDefault", .boolean, "Whether new mailboxes that name no profile get it.", standard: "false"),
    Field("incoming", serverDraft, "The server that mail is fetched from (POP3)."),
    Field("outgoing", serverDraft, "The server that mail is sent through (SMTP)."),
    Field(
      "useSameSettingsForOutgoing", .boolean, "Whether the incoming credentials are those of outgoing too.",
      standard: "true"),
    Field("processEmailFrom", .date, "Mail that was received earlier is not imported; all mail when left out."),
    Field(
      "minimumPollingIntervalMinutes", .integer, "Minutes between two polls of a mailbox; 0: the organization's.",
      in: 0...1_440, standard: "0"),
    Field(
      "maximumConcurrentConnections", .integer,
      "Sessions at once: of each mailbox, or of all where they share an account.",
      in: 1...300, standard: "10"),
    Field("connectionTimeoutSeconds", .integer, "Seconds that a connection may take.", in: 1...100, standard: "30"),
    Field(
      "maximumFailedLogins", .integer, "Logins at one of its servers that may fail within 10 minutes.", in: 1...1_000,
      standard: "10"),
    Field("caCertificatesPEM", .string, "Certificates in PEM that are trusted instead of the system's."),
    Field("sendQuota", sendQuota, "What each of its mailboxes may send; the provider's figures when left out."),
    Field("sharedSendQuota", sendQuota, "What all of its mailboxes together may send; no limit when left out."),
  ])

  /// `OwnerDraft`.
  static let ownerDraft = JSONShape.object([
    Field("kind", choice(OwnerKind.self), isRequired: true, "A person or a shared queue.", example: "user"),
    Field(
      "name", .string, "The name to show of the owner that is created where there is none of that address.", in: 0...200
    ),
    Field("id", .identifier, "An owner that is there; else one of the mailbox's address is found or created."),
  ])

  /// `MailboxDraft`.
  static let mailboxDraft = JSONShape.object([
    Field(
      "address", .string, isRequired: true, "Its e-mail address, unique in the organization.", in: 1...254,
      example: "support@example.com"),
    Field("owner", ownerDraft, "Whose it is; a user of the same address when left out."),
    Field("profileID", .identifier, "Its server profile; the organization's default when left out."),
    Field(
      "incomingMethod", choice(SyncMethod.self), "Whether mail is fetched; as the organization says when left out."),
    Field("outgoingMethod", choice(SyncMethod.self), "Whether mail is sent; as the organization says when left out."),
    Field(
      "actMethod", choice(SyncMethod.self),
      "Whether appointments, contacts and tasks are synchronized; as the organization says when left out. No profile type does it yet."
    ),
    Field("allowsCredentials", .boolean, "Whether userName and password may be used.", standard: "true"),
    Field("userName", .string, "The name to log in with; the address when left out.", in: 0...200),
    Field("password", .secret, "The password to log in with.", in: 0...200),
    Field("processEmailFrom", .date, "Mail that was received earlier is not imported; the profile's when left out."),
    Field(
      "deleteAfterProcessing", .boolean, "Whether stored mail is deleted from the server; queues only.",
      standard: "false"),
  ])

  /// The rows of a bulk verb.
  static let bulkRequest = JSONShape.object([
    Field(
      "ids", .array(of: .identifier, count: 1...1_000), isRequired: true,
      "What it is done to; one that is named twice counts once.")
  ])

  /// Mailboxes to test, and whether their addresses are taken over.
  static let testRequest = JSONShape.object([
    Field(
      "ids", .array(of: .identifier, count: 1...1_000), isRequired: true,
      "The mailboxes; one that is named twice counts once."),
    Field(
      "takeOver", .boolean,
      """
      Sync from this organization only: an address whose mail another organization of this installation receives is taken \
      over from it as soon as the test has logged in; it stops receiving there, and both get an alert. Without it the \
      incoming direction fails with ownership.other-organization then. It counts for this test alone.
      """, standard: "false"),
  ])

  /// `BatchDraft`.
  static let batchDraft = JSONShape.object([
    Field(
      "verb", .choice(BatchVerb.ofMailboxes.map(\.rawValue)), isRequired: true,
      "What is done with each mailbox. Deletions are for good; `apply-defaults` tests and enables afterwards."),
    Field(
      "ids", .array(of: .identifier, count: 1...Batch.maximumIDs),
      "The mailboxes; instead of a filter. One that is named twice counts once."),
    Field(
      "filter",
      .object([
        Field("view", choice(MailboxFilter.View.self), "Only mailboxes of this view."),
        Field("profileID", .identifier, "Only mailboxes of the server profile of this id."),
        Field("ownerKind", choice(OwnerKind.self), "Only mailboxes of users, or of shared queues."),
        Field("addressText", .string, "Only mailboxes whose address has this text, in any case.", example: "@example."),
      ]), "Which mailboxes; an empty one stands for all. Instead of ids."),
    Field("dryRun", .boolean, "Only find out what would become of each mailbox; nothing is done.", standard: "false"),
  ])

  /// Mailboxes whose server renumbered their mail, and what becomes of it.
  static let reimportRequest = JSONShape.object([
    Field("ids", .array(of: .identifier, count: 1...1_000), isRequired: true, "The mailboxes."),
    Field(
      "choice", choice(ReimportChoice.self), isRequired: true,
      "all: everything on the server is imported again; missing: only what is not stored yet."),
  ])

  /// Messages in quarantine for a bulk verb; with `dryRun` nothing is changed.
  static let quarantineRequest = JSONShape.object([
    Field("ids", .array(of: .identifier, count: 1...1_000), isRequired: true, "The messages in quarantine."),
    Field("dryRun", .boolean, "Whether only to say what would happen.", standard: "false"),
  ])

  /// `OAuthClientDraft`.
  static let oauthClientDraft = JSONShape.object([
    Field(
      "flow", choice(OAuthFlow.self),
      "How tokens come about: each owner consents, a service account signs, or the application speaks for itself.",
      standard: "authorization-code"),
    Field(
      "clientID", .string, isRequired: true, "The client id; of a service account its address.", in: 1...500,
      example: "4711.apps.example.com"),
    Field("clientSecret", .secret, "The client secret; the stored one stays when left out.", in: 0...2_000),
    Field(
      "privateKey", .secret, "A service account's private key in PEM; the stored one stays when left out.",
      in: 0...16_384),
    Field("tenant", .string, "Microsoft's directory, a GUID or a domain.", standard: "organizations"),
    Field("authorizationURL", .string, "Where people consent; the provider's when left out."),
    Field("tokenURL", .string, "Where tokens come from; the provider's when left out."),
    Field("revocationURL", .string, "Where a token is taken back; the provider's, if it has one, when left out."),
    Field(
      "scopes", .array(of: .string, count: 0...50), "What is asked for; what the profile needs when left out."),
  ])

  /// `WebhookDraft`.
  static let webhookDraft = JSONShape.object([
    Field(
      "url", .string, isRequired: true, "Where events are delivered.", example: "https://hooks.example.com/postrider"),
    Field("description", .string, "What people should know about it.", in: 0...2_000),
  ])

  /// `ProfileChange`.
  static let profileChange = JSONShape.object([
    Field("name", .string, "Its name, unique in the organization.", in: 1...100, example: "Example mail"),
    Field("description", .string, "What people should know about it.", in: 0...2_000),
    Field("isDefault", .boolean, "true takes the switch from the profile that had it; it cannot be given up."),
    Field("incoming", serverChange, "The server that mail is fetched from (POP3)."),
    Field("outgoing", serverChange, "The server that mail is sent through (SMTP)."),
    Field("useSameSettingsForOutgoing", .boolean, "Whether the incoming credentials are those of outgoing too."),
    Field(
      "processEmailFrom", .date,
      "Mail that was received earlier is not imported; counts for mailboxes that come to the profile afterwards."),
    Field(
      "minimumPollingIntervalMinutes", .integer, "Minutes between two polls of a mailbox; 0: the organization's.",
      in: 0...1_440),
    Field(
      "maximumConcurrentConnections", .integer,
      "Sessions at once: of each mailbox, or of all where they share an account.",
      in: 1...300),
    Field(
      "weight", .integer, "Its share of the workers beside other profiles while there is too much to do.", in: 1...100),
    Field("connectionTimeoutSeconds", .integer, "Seconds that a connection may take.", in: 1...100),
    Field(
      "maximumFailedLogins", .integer, "Logins at one of its servers that may fail within 10 minutes.", in: 1...1_000),
    Field("caCertificatesPEM", .string, "Certificates in PEM that are trusted instead of the system's."),
    Field("isActive", .boolean, "An inactive profile stops its mailboxes."),
    Field("sendQuota", sendQuota, "What each of its mailboxes may send; replaces all limits, an empty one lifts them."),
    Field(
      "sharedSendQuota", sendQuota,
      "What all of its mailboxes together may send; replaces all limits, an empty one lifts them."),
    Field(
      "failureNoticeTo", .string,
      "An address that is told when more than half of its mailboxes fail within an hour; empty for nobody.",
      in: 0...254, example: "ops@example.com"),
    Field("ownerID", .identifier, "The user it belongs to from now on."),
    Field(
      "clears", .array(of: choice(ProfileChange.Clearable.self), count: 0...2),
      "What loses its value; what is left out stays."),
    Field(
      "confirmsNewTests", .boolean,
      """
      Says that its mailboxes may have to be tested again; without it a change of host, port, tls or \
      authentication is refused with 409 needs-new-tests.
      """,
      standard: "false"),
    version,
  ])

  /// `MailboxChange`.
  static let mailboxChange = JSONShape.object([
    Field(
      "address", .string, "Another e-mail address, unique in the organization; waits for approval again.", in: 1...254,
      example: "support@example.com"),
    Field("profileID", .identifier, "The profile it moves to; its directions have to be tested again."),
    Field("isActive", .boolean, "An inactive mailbox does nothing."),
    Field("incomingMethod", choice(SyncMethod.self), "Whether mail is fetched."),
    Field("outgoingMethod", choice(SyncMethod.self), "Whether mail is sent."),
    Field("actMethod", choice(SyncMethod.self), "Whether appointments, contacts and tasks are synchronized."),
    Field("allowsCredentials", .boolean, "Whether userName and password may be used."),
    Field("userName", .string, "The name to log in with.", in: 1...200),
    Field("password", .secret, "The password to log in with.", in: 1...200),
    Field("processEmailFrom", .date, "Mail that was received earlier is not imported."),
    Field("deleteAfterProcessing", .boolean, "Whether stored mail is deleted from the server; queues only."),
    Field(
      "sendQuota", sendQuota,
      "What it may send, instead of its profile's quota for each mailbox; an empty one is no limit."),
    Field(
      "clears", .array(of: choice(MailboxChange.Clearable.self), count: 0...4),
      "What loses its value; what is left out stays."),
    version,
  ])

  /// `AlertMailChange`.
  static let alertMailChange = JSONShape.object([
    Field("isOn", .boolean, "Whether alerts go out by mail; then all that follows must be set."),
    Field("mailboxID", .identifier, "The mailbox that sends them."),
    Field(
      "recipients", .array(of: .string, count: 0...AlertMailChange.maximumRecipients), "The addresses that get them."),
    Field(
      "levels", .array(of: choice(AlertLevel.self), count: 0...3), "Which alerts; at first error and warning."),
  ])

  /// What is paused or resumed; `id` names the profile or mailbox.
  static let pauseRequest = JSONShape.object([
    Field(
      "scope", .choice(["organization", "profile", "mailbox"]), isRequired: true,
      "What is paused; more than a mailbox needs the right queue.manage."),
    Field("id", .identifier, "The profile or mailbox; left out for the organization."),
  ])

  /// Poison jobs by their written ids.
  static let releaseRequest = JSONShape.object([
    Field(
      "jobs", .array(of: .string, count: 1...1_000), isRequired: true,
      "The jobs as the list of them shows: the mailbox, then p, s or t.", example: "4711p")
  ])

  /// `OutgoingDraft`.
  static let outgoingDraft = JSONShape.object([
    Field("mailboxID", .identifier, isRequired: true, "The mailbox it is sent from."),
    Field(
      "to", .array(of: .string, count: 1...OutgoingDraft.maximumRecipients), isRequired: true,
      "The recipients named in To; at most \(OutgoingDraft.maximumRecipients) in all three lists.",
      example: "jane@example.com"),
    Field("cc", .array(of: .string, count: 0...OutgoingDraft.maximumRecipients), "The recipients named in Cc."),
    Field(
      "bcc", .array(of: .string, count: 0...OutgoingDraft.maximumRecipients),
      "Recipients named nowhere in the message."),
    Field(
      "replyTo", .array(of: .string, count: 0...OutgoingDraft.maximumReplyTo),
      "Where answers go instead of the mailbox."),
    Field("subject", .string, isRequired: true, "The subject.", in: 0...998, example: "Your ticket 4711"),
    Field("text", .string, "The body as text; text, html or an attachment is required.", example: "Hello Jane, …"),
    Field("html", .string, "The body as HTML: alone, or as the other form of text."),
    Field(
      "attachments", .array(of: outgoingAttachment, count: 0...OutgoingDraft.maximumAttachments), "The files."),
    Field("inReplyTo", .string, "The Message-ID of the message that it answers.", example: "<4711@example.com>"),
    Field(
      "references", .array(of: .string, count: 0...OutgoingDraft.maximumReferences),
      "The Message-IDs of the conversation, oldest first; inReplyTo when left out."),
    Field(
      "headers", .array(of: outgoingHeader, count: 0...OutgoingDraft.maximumHeaders),
      "Header fields of your own, beginning with X-."),
    Field(
      "autoSubmitted", choice(AutoSubmitted.self),
      "Says that a program wrote it, so that nobody answers it automatically (RFC 3834)."),
    Field("priority", choice(OutgoingPriority.self), "Which messages go first.", standard: "normal"),
    Field("sendAfter", .date, "Not before this time; at once when left out."),
    Field(
      "idempotencyKey", .string,
      "A key of your own: a second message of the mailbox with the same key is not sent, the first one is answered.",
      in: 1...200),
    Field("hold", .boolean, "Whether it is kept as a draft.", standard: "false"),
    Field("notification", dsnRequest, "Which delivery reports are asked for (RFC 3461); failures when left out."),
  ])

  /// `DSNRequest`.
  private static let dsnRequest = JSONShape.object([
    Field(
      "notify", .array(of: choice(DSNCondition.self), count: 0...4), "When to report; never stands alone."),
    Field("returns", choice(DSNReturn.self), "How much comes back with a report; the server's choice when left out."),
  ])

  private static let outgoingAttachment = JSONShape.object([
    Field(
      "fileName", .string, isRequired: true, "Its name, without slashes and line breaks.", in: 1...255,
      example: "offer.pdf"),
    Field("contentType", .string, "type/subtype; guessed from the name when left out.", example: "application/pdf"),
    Field("content", .base64, isRequired: true, "The octets.", example: "JVBERi0xLjQK"),
  ])

  private static let outgoingHeader = JSONShape.object([
    Field("name", .string, isRequired: true, "The field's name; begins with X-.", example: "X-Ticket"),
    Field("value", .string, isRequired: true, "One line.", in: 0...998, example: "4711"),
  ])

  /// How a message is tried again.
  static let retryRequest = JSONShape.object([
    Field(
      "resendUncertain", .boolean,
      "Sends a message again of which nobody knows whether it arrived; it may arrive twice.", standard: "false")
  ])

  /// A verb that needs no more words.
  static let nothing = JSONShape.object([])
}
