import Hummingbird
import PostriderCore

extension APIRoutes {
  private static let list: [QueryParameter] = [
    QueryParameter("active", .boolean, "Only active ones, or only inactive ones; all when left out."),
    QueryParameter("address", .string, "Only the one of this address, in any case.", in: 1...254),
    QueryParameter("text", .string, "Only those whose name or address has this text, in any case.", in: 1...200),
    "limit", "cursor",
  ]

  private static let auditQuery: [QueryParameter] = [
    QueryParameter("action", .string, "Only this action, such as mailbox.create.", in: 1...100),
    QueryParameter("entity", .string, "Only what was done to things of this kind, such as mailbox.", in: 1...100),
    QueryParameter("id", .identifier, "Only what was done to the thing of this id; with entity."),
    QueryParameter("user", .identifier, "Only what the user of this id did."),
    QueryParameter("from", .date, "Not before this time."),
    QueryParameter("to", .date, "Before this time."), "limit", "cursor",
  ]

  /// Users, shared queues, roles, and what people did.
  static let people: [APIRoute] = [
    .get("/roles", .signedIn, answers: .of(Roles.self), "The roles and the rights of each.", handler: listRoles),

    .get(
      "/users", .right(.readUsers), query: list, answers: .of(Page<User>.self), "Users, by address.", handler: listUsers
    ),
    .post(
      "/users", .right(.manageUsers), body: .userDraft, status: 201, answers: .of(User.self), "Enters a user.",
      handler: createUser),
    .get("/users/{id}", .right(.readUsers), answers: .of(User.self), "One user.", handler: showUser),
    .patch(
      "/users/{id}", .right(.manageUsers), body: .userChange, answers: .of(User.self),
      "Changes, activates or deactivates a user; what is left out stays.", handler: changeUser),
    .post(
      "/users/{id}/delete", .right(.manageUsers), body: .nothing, status: 200, answers: .of(Deleted.self),
      "Deletes a user who owns nothing any more.", handler: deleteUser),
    .post(
      "/users/{id}/password", .signedIn, body: .passwordChange, status: 200, answers: passwordAnswer,
      "Sets a user's password, or takes it away; one's own with the present one.", handler: setPassword),

    .get(
      "/shared-queues", .right(.readUsers), query: list, answers: .of(Page<SharedQueue>.self),
      "Shared queues, by address.", handler: listSharedQueues),
    .post(
      "/shared-queues", .right(.manageUsers), body: .sharedQueueDraft, status: 201, answers: .of(SharedQueue.self),
      "Enters a shared queue.",
      handler: createSharedQueue),
    .get(
      "/shared-queues/{id}", .right(.readUsers), answers: .of(SharedQueue.self), "One shared queue.",
      handler: showSharedQueue),
    .patch(
      "/shared-queues/{id}", .right(.manageUsers), body: .sharedQueueChange, answers: .of(SharedQueue.self),
      "Changes, activates or deactivates a shared queue; what is left out stays.", handler: changeSharedQueue),
    .post(
      "/shared-queues/{id}/delete", .right(.manageUsers), body: .nothing, status: 200, answers: .of(Deleted.self),
      "Deletes a shared queue that has no mailbox any more.", handler: deleteSharedQueue),

    .get(
      "/audit", .right(.readAudit),
      query: auditQuery, answers: .of(Page<AuditRecord>.self), "What people did, newest first.",
      handler: listAudit),
  ]

  private struct RoleRights: Codable {
    let role: Role
    let rights: [Right]
    let seesOnlyOwn: Bool
  }

  private struct Roles: Codable {
    let roles: [RoleRights]
  }

  @Sendable static func listRoles(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(
      Roles(
        roles: Role.allCases.map { role in
          RoleRights(
            role: role, rights: Right.allCases.filter { role.rights.contains($0) }, seesOnlyOwn: role.seesOnlyOwn)
        }))
  }

  private static func peopleFilter(_ query: inout QueryReader) -> PeopleFilter {
    PeopleFilter(
      isActive: query.boolean("active"), address: query.text("address", maximum: 254),
      text: query.text("text", maximum: 200))
  }

  @Sendable static func listUsers(_ services: APIServices, _ call: APICall) async throws -> Response {
    let (filter, page) = try call.readQuery { (peopleFilter(&$0), $0.page()) }
    return try call.answer(try await services.store.users(filter, page, for: call.principal))
  }

  @Sendable static func createUser(_ services: APIServices, _ call: APICall) async throws -> Response {
    let draft = try call.decode(UserDraft.self)
    try PeopleRules.check(draft)
    let user = try await services.store.createUser(draft, by: call.principal)
    return try call.answer(user, headers: [.location: "\(prefix)/users/\(user.id)"])
  }

  @Sendable static func showUser(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await services.store.user(try call.identifier(), for: call.principal))
  }

  @Sendable static func changeUser(_ services: APIServices, _ call: APICall) async throws -> Response {
    let id: UserID = try call.identifier()
    let change = try call.decode(UserChange.self)
    try PeopleRules.check(change)
    return try call.answer(try await services.store.updateUser(id, change, by: call.principal))
  }

  @Sendable static func deleteUser(_ services: APIServices, _ call: APICall) async throws -> Response {
    try await services.store.deleteUser(try call.identifier(), by: call.principal)
    return try call.answer(Deleted())
  }

  @Sendable static func listSharedQueues(_ services: APIServices, _ call: APICall) async throws -> Response {
    let (filter, page) = try call.readQuery { (peopleFilter(&$0), $0.page()) }
    return try call.answer(try await services.store.sharedQueues(filter, page, for: call.principal))
  }

  @Sendable static func createSharedQueue(_ services: APIServices, _ call: APICall) async throws -> Response {
    let draft = try call.decode(SharedQueueDraft.self)
    try PeopleRules.check(draft)
    let queue = try await services.store.createSharedQueue(draft, by: call.principal)
    return try call.answer(queue, headers: [.location: "\(prefix)/shared-queues/\(queue.id)"])
  }

  @Sendable static func showSharedQueue(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await services.store.sharedQueue(try call.identifier(), for: call.principal))
  }

  @Sendable static func changeSharedQueue(_ services: APIServices, _ call: APICall) async throws -> Response {
    let id: SharedQueueID = try call.identifier()
    let change = try call.decode(SharedQueueChange.self)
    try PeopleRules.check(change)
    return try call.answer(try await services.store.updateSharedQueue(id, change, by: call.principal))
  }

  @Sendable static func deleteSharedQueue(_ services: APIServices, _ call: APICall) async throws -> Response {
    try await services.store.deleteSharedQueue(try call.identifier(), by: call.principal)
    return try call.answer(Deleted())
  }

  @Sendable static func listAudit(_ services: APIServices, _ call: APICall) async throws -> Response {
    let (filter, page) = try call.readQuery { query in
      let id: AuditID? = query.identifier("id")
      return (
        AuditFilter(
          action: query.text("action", maximum: 100), entity: query.text("entity", maximum: 100), entityID: id?.value,
          userID: query.identifier("user"), from: query.date("from"), to: query.date("to")), query.page()
      )
    }
    return try call.answer(try await services.store.auditRecords(filter, page, for: call.principal))
  }
}
