/// The API as a table: every route with its right, parameters, body and handler.
enum APIRoutes {
  static let prefix = "/api/v1"

  private static let page = ["limit", "cursor"]

  static let all: [APIRoute] = [
    .get("/whoami", .signedIn, "Who the token belongs to.", handler: showPrincipal),

    .get("/server-profiles", .right(.readProfiles), query: page, "Server profiles, by name.", handler: listProfiles),
    .post(
      "/server-profiles", .right(.writeProfiles), body: .profileDraft, status: 201, "Creates a server profile.",
      handler: createProfile),
    .get("/server-profiles/{id}", .right(.readProfiles), "One server profile.", handler: showProfile),

    .get(
      "/mailboxes", .right(.readMailboxes), query: ["view", "address", "profile"] + page, "Mailboxes, by address.",
      handler: listMailboxes),
    .post(
      "/mailboxes", .right(.writeMailboxes), body: .mailboxDraft, status: 201, "Creates a mailbox.",
      handler: createMailbox),
    .get("/mailboxes/{id}", .right(.readMailboxes), "One mailbox.", handler: showMailbox),
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

    .get(
      "/alerts", .right(.readAlerts), query: ["mailbox", "level", "resolved"] + page, "Alerts, newest first.",
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

    .get("/queue/stats", .right(.readQueue), "The numbers of queue and schedule.", handler: showQueue),
    .get(
      "/queue/inspect", .right(.readQueue), query: ["mailbox"], "Where the jobs of a mailbox are.",
      handler: inspectQueue),
  ]
}
