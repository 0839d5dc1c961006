import Hummingbird
import PostriderCore

extension APIRoutes {
  /// Webhooks and their deliveries. Their addresses may hold secrets of the receivers', so only who manages them sees them.
  static let webhooks: [APIRoute] = [
    .get(
      "/webhooks", .right(.manageWebhooks), query: ["limit", "cursor"], answers: .of(Page<Webhook>.self),
      "Webhooks, by number.", handler: listWebhooks),
    .post(
      "/webhooks", .right(.manageWebhooks), body: .webhookDraft, status: 201, answers: Created.shape,
      "Makes a webhook; its secret is shown this once.", handler: createWebhook),
    .get(
      "/webhooks/{id}", .right(.manageWebhooks), answers: .of(Webhook.self), "One webhook.", handler: showWebhook),
    .post(
      "/webhooks/{id}/delete", .right(.manageWebhooks), body: .nothing, status: 200, answers: .of(Deleted.self),
      "Deletes a webhook with its deliveries.", handler: deleteWebhook),
    .post(
      "/webhooks/{id}/test", .right(.manageWebhooks), body: .nothing, status: 202, answers: .of(WebhookDelivery.self),
      "Delivers an event of the type test, once.", handler: testWebhook),
    .get(
      "/webhook-deliveries", .right(.manageWebhooks),
      query: [
        QueryParameter("webhook", .identifier, "Only deliveries of the webhook of this id."),
        QueryParameter(
          "state", .choice(WebhookDeliveryState.allCases.map(\.rawValue)), "Only deliveries in this state."),
        "limit", "cursor",
      ], answers: .of(Page<WebhookDelivery>.self),
      "Deliveries, newest first.", handler: listDeliveries),
    .get(
      "/webhook-deliveries/{id}", .right(.manageWebhooks), answers: .of(WebhookDelivery.self), "One delivery.",
      handler: showDelivery),
    .post(
      "/webhook-deliveries/retry", .right(.manageWebhooks), body: .bulkRequest, status: 202,
      answers: .results(DeliveryResult.self),
      "Has deliveries tried again, also those that were given up.", handler: retryDeliveries),
  ]

  private static func desk(_ services: APIServices) throws -> any WebhookDesk {
    guard let desk = services.webhooks else { throw Problem.notServed("webhooks") }
    return desk
  }

  private struct Created: Encodable {
    static let shape = AnswerShape.of(Webhook.self).adding("secret", .string, as: "CreatedWebhook")

    let webhook: Webhook
    let secret: String

    private enum CodingKeys: CodingKey {
      case secret
    }

    func encode(to encoder: any Encoder) throws {
      try webhook.encode(to: encoder)
      var container = encoder.container(keyedBy: CodingKeys.self)
      try container.encode(secret, forKey: .secret)
    }
  }

  @Sendable static func listWebhooks(_ services: APIServices, _ call: APICall) async throws -> Response {
    let page = try call.readQuery { $0.page() }
    return try call.answer(try await desk(services).webhooks(page, for: call.principal))
  }

  @Sendable static func createWebhook(_ services: APIServices, _ call: APICall) async throws -> Response {
    let created = try await desk(services).create(try call.decode(WebhookDraft.self), by: call.principal)
    return try call.answer(
      Created(webhook: created.webhook, secret: created.secret.revealed),
      headers: [.location: "\(prefix)/webhooks/\(created.webhook.id)"])
  }

  @Sendable static func showWebhook(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await desk(services).webhook(try call.identifier(), for: call.principal))
  }

  struct Deleted: Codable {
    var deleted = true
  }

  @Sendable static func deleteWebhook(_ services: APIServices, _ call: APICall) async throws -> Response {
    try await desk(services).deleteWebhook(try call.identifier(), by: call.principal)
    return try call.answer(Deleted())
  }

  @Sendable static func testWebhook(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await desk(services).testWebhook(try call.identifier(), by: call.principal))
  }

  @Sendable static func listDeliveries(_ services: APIServices, _ call: APICall) async throws -> Response {
    let (filter, page) = try call.readQuery { query in
      (WebhookDeliveryFilter(webhookID: query.identifier("webhook"), state: query.choice("state")), query.page())
    }
    return try call.answer(try await desk(services).webhookDeliveries(filter, page, for: call.principal))
  }

  @Sendable static func showDelivery(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await desk(services).webhookDelivery(try call.identifier(), for: call.principal))
  }

  private struct RetryRequest: Decodable {
    let ids: [WebhookDeliveryID]
  }

  private struct RetryAnswer: Encodable {
    let results: [DeliveryResult]
  }

  @Sendable static func retryDeliveries(_ services: APIServices, _ call: APICall) async throws -> Response {
    var seen: Set<WebhookDeliveryID> = []
    let ids = try call.decode(RetryRequest.self).ids.filter { seen.insert($0).inserted }
    return try call.answer(
      RetryAnswer(results: try await desk(services).retryDeliveries(ids, by: call.principal)))
  }
}
