import Hummingbird
import PostriderCore

extension APIRoutes {
  /// Alerts, and what people do to them.
  static let alerts: [APIRoute] = [
    .get(
      "/alerts", .right(.readAlerts),
      query: alertQuery, answers: .of(Page<Alert>.self),
      "Alerts, newest first: all, or those on a wall.", handler: listAlerts),
    .get("/alerts/{id}", .right(.readAlerts), answers: .of(Alert.self), "One alert.", handler: showAlert),
    .post(
      "/alerts/dismiss", .right(.manageAlerts), body: .bulkRequest, status: 200, answers: .results(AlertResult.self),
      "Closes alerts that somebody has seen to.", handler: dismissAlerts),
    .post(
      "/alerts/delete-all", .right(.manageAlerts), body: .alertDeletion, status: 200, answers: .of(DeletionAnswer.self),
      "Deletes alerts for good: all, or those that the filter leaves.", handler: deleteAlerts),
  ]

  /// Whose wall, as it is asked for; the number of the mailbox or profile stands beside it.
  private enum Wall: String, CaseIterable, Decodable {
    case mine
    case mailbox
    case profile
  }

  private static func wall(
    _ wall: Wall?, _ mailbox: MailboxID?, _ profile: ProfileID?, at prefix: String, _ problems: inout FieldProblems
  ) -> AlertWall? {
    switch (wall, mailbox, profile) {
    case (nil, _, _): return nil
    case (.mine?, _, _): return .mine
    case (.mailbox?, let mailbox?, _): return .mailbox(mailbox)
    case (.profile?, _, let profile?): return .profile(profile)
    case (.mailbox?, nil, _): problems.add(prefix, "required", "is required: whose wall it is")
    case (.profile?, _, nil): problems.add(prefix, "required", "is required: whose wall it is")
    }
    return nil
  }

  @Sendable private static func listAlerts(_ services: APIServices, _ call: APICall) async throws -> Response {
    let (filter, page) = try call.readQuery { query in
      let wall: Wall? = query.choice("wall")
      var filter = AlertFilter(
        mailboxID: query.identifier("mailbox"), profileID: query.identifier("profile"), level: query.choice("level"),
        code: query.text("code", maximum: 100), includeResolved: query.boolean("resolved") ?? false,
        order: query.choice("order") ?? .descending)
      filter.wall = Self.wall(
        wall, filter.mailboxID, filter.profileID, at: "?\(wall?.rawValue ?? "")", &query.problems)
      filter.forgetOwnerOfWall()
      return (filter, query.page())
    }
    return try call.answer(try await services.store.alerts(filter, page, for: call.principal))
  }

  @Sendable private static func showAlert(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await services.store.alert(try call.identifier(), for: call.principal))
  }

  private struct IDs: Decodable {
    let ids: [AlertID]
  }

  private struct Answer: Encodable {
    let results: [AlertResult]
  }

  @Sendable private static func dismissAlerts(_ services: APIServices, _ call: APICall) async throws -> Response {
    let ids = distinct(try call.decode(IDs.self).ids)
    return try call.answer(Answer(results: try await services.store.dismissAlerts(ids, by: call.principal)))
  }

  private struct Deletion: Decodable {
    let wall: Wall?
    let mailboxID: MailboxID?
    let profileID: ProfileID?
    let level: AlertLevel?
    let code: String?
    let includeResolved: Bool?
    let confirms: Bool?
    let dryRun: Bool?
  }

  private struct DeletionAnswer: Codable {
    let count: Int
    let dryRun: Bool
  }

  @Sendable private static func deleteAlerts(_ services: APIServices, _ call: APICall) async throws -> Response {
    let request = try call.decode(Deletion.self)
    var problems = FieldProblems()
    var filter = AlertFilter(
      mailboxID: request.mailboxID, profileID: request.profileID, level: request.level, code: request.code,
      includeResolved: request.includeResolved ?? false)
    filter.wall = wall(
      request.wall, request.mailboxID, request.profileID, at: "/\(request.wall?.rawValue ?? "")ID", &problems)
    filter.forgetOwnerOfWall()
    try problems.throwIfAny()
    let dryRun = request.dryRun ?? false
    if !dryRun && request.confirms != true {
      let count = try await services.store.deleteAlerts(filter, dryRun: true, by: call.principal)
      if count > 0 {
        throw StoreError.conflict(
          code: "needs-confirmation",
          message: "\(count) \(count == 1 ? "alert is" : "alerts are") deleted for good by it; send `confirms`")
      }
    }
    let count = try await services.store.deleteAlerts(filter, dryRun: dryRun, by: call.principal)
    return try call.answer(DeletionAnswer(count: count, dryRun: dryRun))
  }
}

extension AlertFilter {
  /// The number beside a wall says whose it is, and is no filter of its own.
  fileprivate mutating func forgetOwnerOfWall() {
    switch wall {
    case .mailbox: mailboxID = nil
    case .profile: profileID = nil
    case .mine, nil: break
    }
  }
}
