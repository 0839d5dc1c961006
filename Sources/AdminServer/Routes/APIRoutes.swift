/// The API as a table: every route with its right, parameters, body and handler.
enum APIRoutes {
  static let prefix = "/api/v1"

  private static let page = ["limit", "cursor"]

  static let all: [APIRoute] = basic + oauth + webhooks + people + tokens + sessions

  private static let basic: [APIRoute] = [
    .get("/whoami", .signedIn, "Who the token belongs to.", handler: showPrincipal),

    .get("/server-profiles", .right(.readProfiles), query: page, "Server profiles, by name.", handler: listProfiles),
    .post(
      "/server-profiles", .right(.writeProfiles), body: .profileDraft, status: 201, "Creates a server profile.",
      handler: createProfile),
    .get("/server-profiles/{id}", .right(.readProfiles), "One server profile.", handler: showProfile),
    .patch(
      "/server-profiles/{id}", .right(.writeProfiles), body: .profileChange,
      "Changes a server profile; what is left out stays.", handler: changeProfile),

    .get(
      "/mailboxes", .right(.readMailboxes), query: ["view", "address", "profile"] + page, "Mailboxes, by address.",
      handler: listMailboxes),
    .post(
      "/mailboxes", .right(.writeMailboxes), body: .mailboxDraft, status: 201, "Creates a mailbox.",
      handler: createMailbox),
    .get("/mailboxes/{id}", .right(.readMailboxes), "One mailbox.", handler: showMailbox),
    .patch(
      "/mailboxes/{id}", .right(.writeMailboxes), body: .mailboxChange,
      "Changes a mailbox or moves it to another profile; what is left out stays.", handler: changeMailbox),
    .get(
      "/mailboxes/{id}/quota", .right(.readQuotas),
      "What a mailbox may send, has sent, and when the next may leave.",
      handler: showQuota),
    .post(
      "/mailboxes/approve", .right(.approveMailboxes), body: .bulkRequest, status: 200,
      "Lets mailboxes process mail.", handler: approveMailboxes),
    .post(
      "/mailboxes/reject", .right(.approveMailboxes), body: .bulkRequest, status: 200,
      "Keeps mailboxes from processing mail.", handler: rejectMailboxes),
    .post(
      "/mailboxes/test", .right(.writeMailboxes), body: .bulkRequest, status: 202, "Requests test & enable.",
      handler: testMailboxes),
    .post(
      "/mailboxes/poll", .right(.writeMailboxes), body: .bulkRequest, status: 202, "Requests a poll now.",
      handler: pollMailboxes),
    .post(
      "/mailboxes/reimport", .right(.writeMailboxes), body: .reimportRequest, status: 202,
      "Chooses what becomes of mail that the server renumbered, and lets the mailboxes go on.",
      handler: reimportMailboxes),

    .get("/alert-mail", .right(.readProfiles), "Whether and how alerts go out by mail.", handler: showAlertMail),
    .patch(
      "/alert-mail", .right(.writeProfiles), body: .alertMailChange, "Changes it; what is left out stays.",
      handler: changeAlertMail),
    .get(
      "/alerts", .right(.readAlerts), query: ["view", "mailbox", "level", "resolved"] + page, "Alerts, newest first.",
      handler: listAlerts),
    .get(
      "/runs", .right(.readRuns), query: ["mailbox", "kind", "result"] + page, "Runs without steps, newest first.",
      handler: listRuns),
    .get("/runs/{id}", .right(.readRuns), "One run with its steps.", handler: showRun),
    .get(
      "/emails", .right(.readEmails), query: ["mailbox"] + page, "Stored messages, newest first.",
      handler: listEmails),
    .get("/emails/{id}", .right(.readEmails), "One message with bodies and attachments.", handler: showEmail),
    .get("/emails/{id}/raw", .right(.readEmails), "A message as it was received.", handler: showRawEmail),
    .get(
      "/outgoing-emails", .right(.readEmails), query: ["mailbox", "state"] + page,
      "Outgoing messages without recipients, newest first.", handler: listOutgoing),
    .post(
      "/outgoing-emails", .right(.sendEmails), body: .outgoingDraft, status: 201,
      "Sends a message, or keeps it as a draft.", handler: submitEmail
    ).takingMessages(
      query: ["mailbox", "to", "priority", "sendAfter", "idempotencyKey", "hold", "notify", "returns"], submitRawEmail),
    .get(
      "/outgoing-emails/{id}", .right(.readEmails), "One outgoing message and what became of each recipient.",
      handler: showOutgoing),
    .post(
      "/outgoing-emails/{id}/cancel", .right(.sendEmails), body: .nothing, status: 200,
      "Takes back a draft or a message that waits.", handler: cancelOutgoing),
    .post(
      "/outgoing-emails/{id}/retry", .right(.sendEmails), body: .retryRequest, status: 200,
      "Sends a draft, or tries a message again; an uncertain one only with resendUncertain.", handler: retryOutgoing),

    .get(
      "/quarantine", .right(.readEmails), query: ["mailbox", "reason"] + page, "Messages in quarantine, newest first.",
      handler: listQuarantine),
    .get("/quarantine/{id}", .right(.readEmails), "One message in quarantine.", handler: showQuarantined),
    .get(
      "/quarantine/{id}/raw", .right(.readEmails), "A message in quarantine as it was received.",
      handler: showRawQuarantined),
    .post(
      "/quarantine/reprocess", .right(.manageQuarantine), body: .quarantineRequest, status: 202,
      "Asks for another attempt at messages in quarantine.", handler: reprocessQuarantined),
    .post(
      "/quarantine/discard", .right(.manageQuarantine), body: .quarantineRequest, status: 200,
      "Deletes messages from quarantine; they stay on the server and are not fetched again.",
      handler: discardQuarantined),

    .get("/queue/stats", .right(.readQueue), "The numbers of queue and schedule.", handler: showQueue),
    .get(
      "/queue/inspect", .right(.readQueue), query: ["mailbox"], "Where the jobs of a mailbox are.",
      handler: inspectQueue),
    .get(
      "/queue/profiles", .right(.readQueue), query: ["sort", "limit"],
      "The queue's numbers for each profile of the organization.", handler: listQueueProfiles),
    .get("/queue/pauses", .right(.readQueue), query: page, "What is paused, since when, by whom.", handler: listPauses),
    .post(
      "/queue/pause", .right(.writeMailboxes), body: .pauseRequest, status: 200,
      "Pauses a mailbox, a profile or the organization.", handler: pause),
    .post(
      "/queue/resume", .right(.writeMailboxes), body: .pauseRequest, status: 200, "Ends such a pause.",
      handler: resume),
    .get(
      "/queue/set-aside", .right(.readQueue), query: page, "Poison jobs, oldest first.", handler: listSetAsideJobs),
    .post(
      "/queue/release", .right(.manageQueue), body: .releaseRequest, status: 200, "Lets poison jobs run again.",
      handler: releaseJobs),
    .post(
      "/queue/repair", .right(.manageQueue), body: .nothing, status: 202,
      "Has the leading scheduler check the queue's invariants and mend what is broken.", handler: requestRepair),
    .get("/queue/repairs/{id}", .right(.readQueue), "A repair and what it found.", handler: showRepair),
    .get("/scale", .right(.readQueue), "How many workers the work at hand wants.", handler: showScale),
  ]
}
