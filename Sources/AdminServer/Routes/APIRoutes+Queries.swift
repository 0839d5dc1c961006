import PostriderCore

/// The parameters of the lists.
extension APIRoutes {
  static let pageQuery: [QueryParameter] = ["limit", "cursor"]

  private static let order = QueryParameter(
    "order", .choice(RowOrder.allCases.map(\.rawValue)), "desc: newest first; asc begins with the last page.",
    standard: "desc")

  static let mailboxQuery: [QueryParameter] = [
    QueryParameter(
      "view", .choice(MailboxFilter.View.allCases.map(\.rawValue)), "Only mailboxes of this view; all when left out."),
    QueryParameter("address", .string, "Only the mailbox of this address, in any case.", in: 1...254), "profile",
    QueryParameter(
      "sort", .choice(MailboxSort.allCases.map(\.rawValue)),
      """
      By address, or by the last change of settings or state; with - the other way round, which begins with the last \
      page. By change only without other filters; by last run not at all, as it changes with every session.
      """, standard: "address"), "limit", "cursor",
  ]

  static let alertQuery: [QueryParameter] = [
    QueryParameter(
      "wall", .choice(["mine", "mailbox", "profile"]),
      "Only alerts on this wall; mailbox and profile name whose it is. A profile's wall has the errors of its mailboxes."
    ),
    "mailbox", "profile",
    QueryParameter("code", .string, "Only alerts with this code, such as auth.rejected.", in: 1...100),
    QueryParameter("level", .choice(AlertLevel.allCases.map(\.rawValue)), "Only alerts of this level."),
    QueryParameter("resolved", .boolean, "Whether alerts whose cause is gone are shown too.", standard: "false"), order,
    "limit", "cursor",
  ]

  static let runQuery: [QueryParameter] = [
    "mailbox", QueryParameter("kind", .choice(JobKind.allCases.map(\.word)), "Only runs of this kind."),
    QueryParameter("result", .choice(RunResult.allCases.map(\.rawValue)), "Only runs that ended so."), order, "limit",
    "cursor",
  ]

  static let emailQuery: [QueryParameter] = ["mailbox", "limit", "cursor"]

  static let outgoingQuery: [QueryParameter] = [
    "mailbox", QueryParameter("state", .choice(OutgoingState.allCases.map(\.rawValue)), "Only messages in this state."),
    "limit", "cursor",
  ]

  static let quarantineQuery: [QueryParameter] = [
    "mailbox",
    QueryParameter(
      "reason", .choice(FailureCode.allCases.map(\.rawValue)), "Only messages that failed with this code."),
    "limit", "cursor",
  ]

  static let inspectQuery: [QueryParameter] = [
    QueryParameter("mailbox", .identifier, isRequired: true, "The mailbox.")
  ]

  static let queueProfileQuery: [QueryParameter] = [
    QueryParameter(
      "sort", .choice(QueueProfileOrder.allCases.map(\.rawValue)), "By what, highest first but for the name.",
      standard: "ready"),
    QueryParameter("limit", .integer, "How many profiles at most.", in: 1...10_000, standard: "50"),
  ]
}
