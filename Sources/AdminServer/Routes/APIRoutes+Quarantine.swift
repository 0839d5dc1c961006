import Hummingbird
import PostriderCore

extension APIRoutes {
  @Sendable static func listQuarantine(_ services: APIServices, _ call: APICall) async throws -> Response {
    let (filter, page) = try call.readQuery { query in
      (QuarantineFilter(mailboxID: query.identifier("mailbox"), reason: query.choice("reason")), query.page())
    }
    return try call.answer(try await services.store.quarantine(filter, page, for: call.principal))
  }

  @Sendable static func showQuarantined(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await services.store.quarantinedMessage(try call.identifier(), for: call.principal))
  }

  @Sendable static func showRawQuarantined(_ services: APIServices, _ call: APICall) async throws -> Response {
    let id: QuarantineID = try call.identifier()
    return try await raw(
      try await services.store.rawQuarantined(id, for: call.principal), fileName: "quarantine-\(id).eml")
  }

  @Sendable static func reprocessQuarantined(_ services: APIServices, _ call: APICall) async throws -> Response {
    try await quarantineVerb(call) { ids, dryRun in
      try await services.store.reprocess(ids, dryRun: dryRun, by: call.principal)
    }
  }

  @Sendable static func discardQuarantined(_ services: APIServices, _ call: APICall) async throws -> Response {
    try await quarantineVerb(call) { ids, dryRun in
      try await services.store.discard(ids, dryRun: dryRun, by: call.principal)
    }
  }

  private struct QuarantineRequest: Decodable {
    let ids: [QuarantineID]
    let dryRun: Bool?
  }

  struct QuarantineAnswer: Codable {
    let results: [QuarantineResult]
    let dryRun: Bool
  }

  private static func quarantineVerb(
    _ call: APICall, _ verb: ([QuarantineID], Bool) async throws -> [QuarantineResult]
  ) async throws -> Response {
    let request = try call.decode(QuarantineRequest.self)
    let dryRun = request.dryRun ?? false
    // A row named twice is one row.
    var seen: Set<QuarantineID> = []
    let ids = request.ids.filter { seen.insert($0).inserted }
    return try call.answer(QuarantineAnswer(results: try await verb(ids, dryRun), dryRun: dryRun))
  }
}
