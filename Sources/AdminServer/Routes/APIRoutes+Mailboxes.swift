import Hummingbird
import PostriderCore

extension APIRoutes {
  @Sendable static func listMailboxes(_ services: APIServices, _ call: APICall) async throws -> Response {
    let (filter, page) = try call.readQuery { query in
      let filter = MailboxFilter(
        view: query.choice("view"), address: query.text("address", maximum: 254),
        profileID: query.identifier("profile"), sort: query.choice("sort") ?? .address)
      if filter.sort.isByChange && filter.isNarrowed {
        query.problems.add(
          "?sort", "not-sortable",
          "\(filter.sort.rawValue) works without view, address and profile only; leave them out")
      }
      return (filter, query.page())
    }
    return try call.answer(try await services.store.mailboxes(filter, page, for: call.principal))
  }

  @Sendable static func createMailbox(_ services: APIServices, _ call: APICall) async throws -> Response {
    let draft = try call.decode(MailboxDraft.self)
    try MailboxRules.check(draft)
    let mailbox = try await services.store.createMailbox(draft, by: call.principal)
    return try call.answer(mailbox, headers: [.location: "\(prefix)/mailboxes/\(mailbox.id)"])
  }

  @Sendable static func showMailbox(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await services.store.mailbox(try call.identifier(), for: call.principal))
  }

  @Sendable static func changeMailbox(_ services: APIServices, _ call: APICall) async throws -> Response {
    let id: MailboxID = try call.identifier()
    let change = try call.decode(MailboxChange.self)
    try change.check()
    return try call.answer(try await services.store.updateMailbox(id, change, by: call.principal))
  }

  @Sendable static func showQuota(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await services.store.sendAllowance(of: try call.identifier(), for: call.principal))
  }

  @Sendable static func approveMailboxes(_ services: APIServices, _ call: APICall) async throws -> Response {
    try await bulk(call) { try await services.store.setApproval(.approved, of: $0, by: call.principal) }
  }

  @Sendable static func rejectMailboxes(_ services: APIServices, _ call: APICall) async throws -> Response {
    try await bulk(call) { try await services.store.setApproval(.rejected, of: $0, by: call.principal) }
  }

  private struct TestRequest: Decodable {
    let takeOver: Bool?
  }

  @Sendable static func testMailboxes(_ services: APIServices, _ call: APICall) async throws -> Response {
    let takesOver = try call.decode(TestRequest.self).takeOver ?? false
    return try await bulk(call) {
      try await services.store.requestTest(of: $0, takingOver: takesOver, by: call.principal)
    }
  }

  @Sendable static func pollMailboxes(_ services: APIServices, _ call: APICall) async throws -> Response {
    try await bulk(call) { try await services.store.requestPoll(of: $0, by: call.principal) }
  }

  private struct ReimportRequest: Decodable {
    let choice: ReimportChoice
  }

  @Sendable static func reimportMailboxes(_ services: APIServices, _ call: APICall) async throws -> Response {
    let choice = try call.decode(ReimportRequest.self).choice
    return try await bulk(call) { try await services.store.reimport(choice, of: $0, by: call.principal) }
  }

  private struct BulkRequest: Decodable {
    let ids: [MailboxID]
  }

  private struct BulkAnswer: Encodable {
    let results: [BulkResult]
  }

  private static func bulk(
    _ call: APICall, _ verb: ([MailboxID]) async throws -> [BulkResult]
  ) async throws -> Response {
    // A row named twice is one row.
    var seen: Set<MailboxID> = []
    let ids = try call.decode(BulkRequest.self).ids.filter { seen.insert($0).inserted }
    return try call.answer(BulkAnswer(results: try await verb(ids)))
  }
}
