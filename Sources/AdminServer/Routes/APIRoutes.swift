import PostriderCore

/// The API as a table: every route with its right, parameters, body and handler.
enum APIRoutes {
  static let prefix = "/api/v1"

  static let all: [APIRoute] = basic + settings + alerts + oauth + webhooks + batches + people + tokens + sessions

  private static let basic: [APIRoute] = [
    .get("/whoami", .signedIn, answers: .of(Principal.self), "Who the token belongs to.", handler: showPrincipal),

    .get(
      "/server-profiles", .right(.readProfiles), query: pageQuery, answers: .of(Page<ServerProfile>.self),
      "Server profiles, by name.", handler: listProfiles),
    .post(
      "/server-profiles", .right(.writeProfiles), body: .profileDraft, status: 201, answers: CreatedProfile.shape,
      "Creates a server profile.", handler: createProfile),
    .get(
      "/server-profiles/{id}", .right(.readProfiles), answers: .of(ServerProfile.self), "One server profile.",
      handler: showProfile),
    .patch(
      "/server-profiles/{id}", .right(.writeProfiles), body: .profileChange, answers: .of(ServerProfile.self),
      "Changes a server profile; what is left out stays.", handler: changeProfile),

    .get(
      "/mailboxes", .right(.readMailboxes), query: mailboxQuery, answers: .of(Page<Mailbox>.self),
      "Mailboxes, by address.", handler: listMailboxes),
    .post(
      "/mailboxes", .right(.writeMailboxes), body: .mailboxDraft, status: 201, answers: .of(Mailbox.self),
      "Creates a mailbox.", handler: createMailbox
    ).repeatable(),
    .get(
      "/mailboxes/{id}", .right(.readMailboxes), answers: .of(Mailbox.self), "One mailbox.", handler: showMailbox),
    .patch(
      "/mailboxes/{id}", .right(.writeMailboxes), body: .mailboxChange, answers: .of(Mailbox.self),
      "Changes a mailbox or moves it to another profile; what is left out stays.", handler: changeMailbox),
    .get(
      "/mailboxes/{id}/quota", .right(.readQuotas), answers: .of(SendAllowance.self),
      "What a mailbox may send, has sent, and when the next may leave.",
      handler: showQuota),
    .post(
      "/mailboxes/approve", .right(.approveMailboxes), body: .bulkRequest, status: 200,
      answers: .results(BulkResult.self),
      "Lets mailboxes process mail.", handler: approveMailboxes),
    .post(
      "/mailboxes/reject", .right(.approveMailboxes), body: .bulkRequest, status: 200,
      answers: .results(BulkResult.self),
      "Keeps mailboxes from processing mail.", handler: rejectMailboxes),
    .post(
      "/mailboxes/test", .right(.writeMailboxes), body: .testRequest, status: 202, answers: .results(BulkResult.self),
      "Requests test & enable.",
      handler: testMailboxes),
    .post(
      "/mailboxes/poll", .right(.writeMailboxes), body: .bulkRequest, status: 202, answers: .results(BulkResult.self),
      "Requests a poll now.",
      handler: pollMailboxes),
    .post(
      "/mailboxes/reimport", .right(.writeMailboxes), body: .reimportRequest, status: 202,
      answers: .results(BulkResult.self),
      "Chooses what becomes of mail that the server renumbered, and lets the mailboxes go on.",
      handler: reimportMailboxes),

    .get(
      "/alert-mail", .right(.readProfiles), answers: .of(AlertMailSettings.self),
      "Whether and how alerts go out by mail.", handler: showAlertMail),
    .patch(
      "/alert-mail", .right(.writeProfiles), body: .alertMailChange, answers: .of(AlertMailSettings.self),
      "Changes whether and how alerts go out by mail; what is left out stays.", handler: changeAlertMail),
    .get(
      "/runs", .right(.readRuns), query: runQuery, answers: .of(Page<RunRecord>.self),
      "Runs without steps, newest first.",
      handler: listRuns),
    .get("/runs/{id}", .right(.readRuns), answers: .of(RunRecord.self), "One run with its steps.", handler: showRun),
    .get(
      "/emails", .right(.readEmails), query: emailQuery, answers: .of(Page<EmailRecord>.self),
      "Stored messages, newest first.", handler: listEmails),
    .get(
      "/emails/{id}", .right(.readEmails), answers: .of(EmailRecord.self), "One message with bodies and attachments.",
      handler: showEmail),
    .get(
      "/emails/{id}/raw", .right(.readEmails), answers: .octets(mediaType: "message/rfc822"),
      "A message as it was received.", handler: showRawEmail),
    .get(
      "/outgoing-emails", .right(.readEmails), query: outgoingQuery, answers: .of(Page<OutgoingEmail>.self),
      "Outgoing messages without recipients, newest first.", handler: listOutgoing),
    .post(
      "/outgoing-emails", .right(.sendEmails), body: .outgoingDraft, status: 201, answers: .of(OutgoingEmail.self),
      "Sends a message, or keeps it as a draft.", handler: submitEmail
    ).takingMessages(
      query: rawMessage, submitRawEmail),
    .get(
      "/outgoing-emails/{id}", .right(.readEmails), answers: .of(OutgoingEmail.self),
      "One outgoing message and what became of each recipient.", handler: showOutgoing),
    .post(
      "/outgoing-emails/{id}/cancel", .right(.sendEmails), body: .nothing, status: 200,
      answers: .of(OutgoingEmail.self),
      "Takes back a draft or a message that waits.", handler: cancelOutgoing),
    .post(
      "/outgoing-emails/{id}/retry", .right(.sendEmails), body: .retryRequest, status: 200,
      answers: .of(OutgoingEmail.self),
      "Sends a draft, or tries a message again; an uncertain one only with resendUncertain.", handler: retryOutgoing),

    .get(
      "/quarantine", .right(.readEmails), query: quarantineQuery, answers: .of(Page<QuarantinedMessage>.self),
      "Messages in quarantine, newest first.",
      handler: listQuarantine),
    .get(
      "/quarantine/{id}", .right(.readEmails), answers: .of(QuarantinedMessage.self), "One message in quarantine.",
      handler: showQuarantined),
    .get(
      "/quarantine/{id}/raw", .right(.readEmails), answers: .octets(mediaType: "message/rfc822"),
      "A message in quarantine as it was received.",
      handler: showRawQuarantined),
    .post(
      "/quarantine/reprocess", .right(.manageQuarantine), body: .quarantineRequest, status: 202,
      answers: .of(QuarantineAnswer.self),
      "Asks for another attempt at messages in quarantine.", handler: reprocessQuarantined),
    .post(
      "/quarantine/discard", .right(.manageQuarantine), body: .quarantineRequest, status: 200,
      answers: .of(QuarantineAnswer.self),
      "Deletes messages from quarantine; they stay on the server and are not fetched again.",
      handler: discardQuarantined),

    .get(
      "/queue/stats", .right(.readQueue), answers: .of(QueueAnswer.self), "The numbers of queue and schedule.",
      handler: showQueue),
    .get(
      "/queue/inspect", .right(.readQueue), query: inspectQuery,
      answers: .of(InspectAnswer.self), "Where the jobs of a mailbox are.",
      handler: inspectQueue),
    .get(
      "/queue/profiles", .right(.readQueue), query: queueProfileQuery, answers: .of(ProfilesAnswer.self),
      "The queue's numbers for each profile of the organization.", handler: listQueueProfiles),
    .get(
      "/queue/pauses", .right(.readQueue), query: pageQuery, answers: .of(Page<Pause>.self),
      "What is paused, since when, by whom.", handler: listPauses),
    .post(
      "/queue/pause", .right(.writeMailboxes), body: .pauseRequest, status: 200, answers: .of(PauseAnswer.self),
      "Pauses a mailbox, a profile or the organization.", handler: pause),
    .post(
      "/queue/resume", .right(.writeMailboxes), body: .pauseRequest, status: 200, answers: .of(PauseAnswer.self),
      "Ends such a pause.", handler: resume),
    .get(
      "/queue/set-aside", .right(.readQueue), query: pageQuery, answers: .of(Page<SetAsideJob>.self),
      "Poison jobs, oldest first.", handler: listSetAsideJobs),
    .post(
      "/queue/release", .right(.manageQueue), body: .releaseRequest, status: 200, answers: .of(ReleaseAnswer.self),
      "Lets poison jobs run again.", handler: releaseJobs),
    .post(
      "/queue/repair", .right(.manageQueue), body: .nothing, status: 202, answers: .of(RepairRequest.self),
      "Has the leading scheduler check the queue's invariants and mend what is broken.", handler: requestRepair),
    .get(
      "/queue/repairs/{id}", .right(.readQueue), answers: .of(RepairRequest.self), "A repair and what it found.",
      handler: showRepair),
    .get(
      "/scale", .right(.readQueue), answers: .of(ScaleHint.self), "How many workers the work at hand wants.",
      handler: showScale),
  ]
}
