import Hummingbird
import PostriderCore

extension APIRoutes {
  /// Settings of the organization, activation, deletion and defaults.
  static let settings: [APIRoute] = [
    .get(
      "/email-settings", .right(.readProfiles), answers: .of(EmailSettings.self), "The organization's email settings.",
      handler: showEmailSettings),
    .patch(
      "/email-settings", .right(.writeProfiles), body: .emailSettingsChange, answers: .of(EmailSettings.self),
      "Changes the organization's email settings; what is left out stays.",
      handler: changeEmailSettings),

    .post(
      "/server-profiles/{id}/activate", .right(.writeProfiles), body: .nothing, status: 200,
      answers: .of(ServerProfile.self),
      "Lets the mailboxes of a server profile run.", handler: activateProfile),
    .post(
      "/server-profiles/{id}/deactivate", .right(.writeProfiles), body: .nothing, status: 200,
      answers: .of(ServerProfile.self),
      "Stops the mailboxes of a server profile.", handler: deactivateProfile),
    .post(
      "/server-profiles/{id}/delete", .right(.writeProfiles), body: .profileDeletion, status: 200,
      answers: .of(ProfileDeletion.self),
      "Deletes a server profile; its mailboxes stay, without one.", handler: deleteProfile),

    .patch(
      "/mailboxes", .right(.writeMailboxes), body: .mailboxEditRequest, answers: .results(MailboxEditResult.self),
      "Changes mailboxes in one transaction, without a test; what is left out stays.", handler: editMailboxes),
    .post(
      "/mailboxes/activate", .right(.writeMailboxes), body: .bulkRequest, status: 200,
      answers: .results(BulkResult.self), "Lets mailboxes run.",
      handler: activateMailboxes),
    .post(
      "/mailboxes/deactivate", .right(.writeMailboxes), body: .bulkRequest, status: 200,
      answers: .results(BulkResult.self), "Stops mailboxes.",
      handler: deactivateMailboxes),
    .post(
      "/mailboxes/delete", .right(.writeMailboxes), body: .mailboxDeletion, status: 200,
      answers: .results(MailboxDeletion.self),
      "Deletes mailboxes with their mail and runs.", handler: deleteMailboxes),
    .post(
      "/mailboxes/apply-defaults", .right(.writeMailboxes), body: .defaultsRequest, status: 200,
      answers: .of(DefaultsAnswer.self),
      "Gives mailboxes the default profile and methods of the organization, and tests and enables them.",
      handler: applyDefaults),
  ]

  @Sendable private static func showEmailSettings(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await services.store.emailSettings(for: call.principal))
  }

  @Sendable private static func changeEmailSettings(_ services: APIServices, _ call: APICall) async throws -> Response {
    let change = try call.decode(EmailSettingsChange.self)
    return try call.answer(try await services.store.updateEmailSettings(change, by: call.principal))
  }

  // MARK: Profiles

  @Sendable private static func activateProfile(_ services: APIServices, _ call: APICall) async throws -> Response {
    try await setActive(true, services, call)
  }

  @Sendable private static func deactivateProfile(_ services: APIServices, _ call: APICall) async throws -> Response {
    try await setActive(false, services, call)
  }

  private static func setActive(_ isActive: Bool, _ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(
      try await services.store.updateProfile(
        try call.identifier(), ProfileChange(isActive: isActive), rules: services.profileRules, by: call.principal))
  }

  private struct ProfileDeletionRequest: Decodable {
    let confirmsUnlinking: Bool?
    let dryRun: Bool?
  }

  @Sendable private static func deleteProfile(_ services: APIServices, _ call: APICall) async throws -> Response {
    let request = try call.decode(ProfileDeletionRequest.self)
    return try call.answer(
      try await services.store.deleteProfile(
        try call.identifier(), confirmsUnlinking: request.confirmsUnlinking ?? false, dryRun: request.dryRun ?? false,
        by: call.principal))
  }

  // MARK: Mailboxes

  private struct Answer<Row: Encodable>: Encodable {
    let results: [Row]
  }

  @Sendable private static func editMailboxes(_ services: APIServices, _ call: APICall) async throws -> Response {
    var request = try call.decode(MailboxEditRequest.self)
    request.ids = distinct(request.ids)
    try request.check()
    return try call.answer(Answer(results: try await services.store.editMailboxes(request, by: call.principal)))
  }

  @Sendable private static func activateMailboxes(_ services: APIServices, _ call: APICall) async throws -> Response {
    try await setMailboxesActive(true, services, call)
  }

  @Sendable private static func deactivateMailboxes(_ services: APIServices, _ call: APICall) async throws -> Response {
    try await setMailboxesActive(false, services, call)
  }

  private struct IDs: Decodable {
    let ids: [MailboxID]
  }

  private static func setMailboxesActive(
    _ isActive: Bool, _ services: APIServices, _ call: APICall
  ) async throws -> Response {
    let ids = distinct(try call.decode(IDs.self).ids)
    let request = MailboxEditRequest(ids: ids, change: MailboxChange(isActive: isActive))
    let edits = try await services.store.editMailboxes(request, by: call.principal)
    return try call.answer(
      Answer(results: edits.map { BulkResult(id: $0.id, ok: $0.ok, code: $0.code, message: $0.message) }))
  }

  @Sendable private static func deleteMailboxes(_ services: APIServices, _ call: APICall) async throws -> Response {
    var request = try call.decode(MailboxDeletionRequest.self)
    request.ids = distinct(request.ids)
    return try call.answer(Answer(results: try await services.store.deleteMailboxes(request, by: call.principal)))
  }

  private struct DefaultsAnswer: Codable {
    let settings: EmailSettings
    let results: [MailboxEditResult]
    /// Whether each one's test was requested; absent when none was to be.
    let tests: [BulkResult]?
  }

  @Sendable private static func applyDefaults(_ services: APIServices, _ call: APICall) async throws -> Response {
    let request = try call.decode(DefaultsRequest.self)
    let dryRun = request.dryRun ?? false
    let applied = try await services.store.applyDefaults(
      to: distinct(request.ids), dryRun: dryRun, by: call.principal)
    var tests: [BulkResult]?
    if !dryRun && request.test ?? true {
      let changed = applied.results.filter(\.ok).map(\.id)
      tests = changed.isEmpty ? [] : try await services.store.requestTest(of: changed, by: call.principal)
    }
    return try call.answer(DefaultsAnswer(settings: applied.settings, results: applied.results, tests: tests))
  }

  /// A row named twice is one row.
  static func distinct<Entity>(_ ids: [Identifier<Entity>]) -> [Identifier<Entity>] {
    var seen: Set<Identifier<Entity>> = []
    return ids.filter { seen.insert($0).inserted }
  }
}
