import PostriderCore

/// Administration of webhooks.
public struct WebhookService: WebhookDesk {
  private let store: any WebhookStore
  private let web: WebClient

  /// Over the store; `web` knows where webhooks may lead.
  public init(store: any WebhookStore, web: WebClient) {
    self.store = store
    self.web = web
  }

  /// Makes a webhook. Addresses that the egress policy denies are refused here already.
  public func create(_ draft: WebhookDraft, by principal: Principal) async throws -> CreatedWebhook {
    let url = try draft.checked()
    do throws(Failure) { try web.check(url) } catch {
      throw StoreError.invalid([FieldProblem("/url", error.code.rawValue, error.context ?? error.code.summary)])
    }
    let secret = WebhookSignature.makeSecret()
    return CreatedWebhook(
      webhook: try await store.createWebhook(
        url, description: draft.description ?? "", secret: secret, by: principal),
      secret: secret)
  }

  /// Makes a webhook from checked parts.
  public func createWebhook(
    _ url: WebURL, description: String, secret: Secret, by principal: Principal
  ) async throws -> Webhook {
    try await store.createWebhook(url, description: description, secret: secret, by: principal)
  }

  /// Webhooks, by number.
  public func webhooks(_ page: PageRequest, for principal: Principal) async throws -> Page<Webhook> {
    try await store.webhooks(page, for: principal)
  }

  /// One of them.
  public func webhook(_ id: WebhookID, for principal: Principal) async throws -> Webhook {
    try await store.webhook(id, for: principal)
  }

  /// Deletes it with its deliveries.
  public func deleteWebhook(_ id: WebhookID, by principal: Principal) async throws {
    try await store.deleteWebhook(id, by: principal)
  }

  /// Queues a test.
  public func testWebhook(_ id: WebhookID, by principal: Principal) async throws -> WebhookDelivery {
    try await store.testWebhook(id, by: principal)
  }

  /// Deliveries, newest first.
  public func webhookDeliveries(
    _ filter: WebhookDeliveryFilter, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<WebhookDelivery> {
    try await store.webhookDeliveries(filter, page, for: principal)
  }

  /// One of them.
  public func webhookDelivery(_ id: WebhookDeliveryID, for principal: Principal) async throws -> WebhookDelivery {
    try await store.webhookDelivery(id, for: principal)
  }

  /// Has deliveries tried again.
  public func retryDeliveries(
    _ ids: [WebhookDeliveryID], by principal: Principal
  ) async throws -> [DeliveryResult] {
    try await store.retryDeliveries(ids, by: principal)
  }
}
