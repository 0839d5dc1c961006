import FoundationEssentials

/// A webhook just made, with the secret that is shown this once.
public struct CreatedWebhook: Sendable {
  /// The webhook.
  public var webhook: Webhook
  /// `whsec_` and base64 of 32 octets: what the receiver verifies signatures with.
  public var secret: Secret

  /// Pairs both.
  public init(webhook: Webhook, secret: Secret) {
    self.webhook = webhook
    self.secret = secret
  }
}

/// Which deliveries.
public struct WebhookDeliveryFilter: Hashable, Sendable {
  /// Of this webhook.
  public var webhookID: WebhookID?
  /// In this state.
  public var state: WebhookDeliveryState?

  /// Describes a filter.
  public init(webhookID: WebhookID? = nil, state: WebhookDeliveryState? = nil) {
    self.webhookID = webhookID
    self.state = state
  }
}

/// The answer of a delivery to a bulk verb.
public typealias DeliveryResult = RowResult<WebhookDelivery>

/// What administration needs for webhooks. Every call works in the principal's organization alone, writes its audit row in
/// the same transaction, and throws ``StoreError``.
public protocol WebhookStore: Sendable {
  /// Makes a webhook.
  func createWebhook(
    _ url: WebURL, description: String, secret: Secret, by principal: Principal
  ) async throws -> Webhook
  /// Webhooks, by number.
  func webhooks(_ page: PageRequest, for principal: Principal) async throws -> Page<Webhook>
  /// One of them.
  func webhook(_ id: WebhookID, for principal: Principal) async throws -> Webhook
  /// Deletes it with its deliveries.
  func deleteWebhook(_ id: WebhookID, by principal: Principal) async throws
  /// Queues a test.
  func testWebhook(_ id: WebhookID, by principal: Principal) async throws -> WebhookDelivery
  /// Deliveries, newest first.
  func webhookDeliveries(
    _ filter: WebhookDeliveryFilter, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<WebhookDelivery>
  /// One of them.
  func webhookDelivery(_ id: WebhookDeliveryID, for principal: Principal) async throws -> WebhookDelivery
  /// Has deliveries tried again at once, dead ones too; refused with `delivered` for those that arrived.
  func retryDeliveries(_ ids: [WebhookDeliveryID], by principal: Principal) async throws -> [DeliveryResult]
}

/// What administration does with webhooks.
public protocol WebhookDesk: WebhookStore {
  /// Checks the address against the egress policy, makes a secret and the webhook.
  func create(_ draft: WebhookDraft, by principal: Principal) async throws -> CreatedWebhook
}

/// What the dispatcher needs of PostgreSQL. Calls throw ``StoreError``.
public protocol DeliveryQueue: Sendable {
  /// Takes due deliveries for `lease`, at most `limit` and at most `perWebhook` of each, none of the webhooks `busy`;
  /// while taken nobody else gets them.
  func claimDeliveries(
    limit: Int, perWebhook: Int, except busy: [WebhookID], lease: Duration
  ) async throws -> [ClaimedDelivery]
  /// It arrived.
  func delivered(_ delivery: ClaimedDelivery, status: Int) async throws
  /// It did not; tried again after `retry`, given up with `nil`. The webhook waits for `pause`; `nil`: it is not to blame.
  func deliveryFailed(
    _ delivery: ClaimedDelivery, status: Int?, reason: String, retry: Duration?, pause: Duration?
  ) async throws
  /// Gives up what waits for longer than `patience`, and forgets what was finished long ago; a bounded part of it.
  /// Returns whether there may be more.
  func tidyDeliveries(patience: Duration, keepDelivered: Duration, keepDead: Duration) async throws -> Bool
  /// Returns soon after mail was stored by this process, or when the time is over.
  func waitForMail(atMost: Duration) async
}
