import FoundationEssentials
import PostriderCore

extension PostgresStore: WebhookStore {
  private static let webhookColumns = """
    SELECT w.id, w.url, w.description,
      (SELECT count(*) FROM webhook_delivery d WHERE d.webhook_id = w.id AND d.state = 'pending'),
      (SELECT count(*) FROM webhook_delivery d WHERE d.webhook_id = w.id AND d.organization_id = w.organization_id
        AND d.state = 'dead'),
      w.failures, w.retry_at, w.last_success_at, w.last_failure_at, w.last_error, w.created_by, w.created_at
    FROM webhook w
    """

  private static func webhook(_ row: inout Row) throws -> Webhook {
    Webhook(
      id: try row.id(), url: try row.text(), description: try row.text(), pending: Int(try row.int()),
      dead: Int(try row.int()), failures: Int(try row.int()), retryAt: try row.dateOrNil(),
      lastSuccessAt: try row.dateOrNil(), lastFailureAt: try row.dateOrNil(), lastError: try row.textOrNil(),
      createdBy: try row.text(), createdAt: try row.date())
  }

  private static func read(_ id: WebhookID, _ organization: OrganizationID) -> Statement {
    Statement(webhookColumns + " WHERE w.id = $1 AND w.organization_id = $2", [.id(id), .id(organization)])
  }

  private static func webhook(_ result: ResultSet) throws -> Webhook {
    guard let webhook = try result.map(Self.webhook).first else { throw StoreError.notFound("webhook") }
    return webhook
  }

  /// Makes a webhook; mail stored from now on is announced to it.
  public func createWebhook(
    _ url: WebURL, description: String, secret: Secret, by principal: Principal
  ) async throws -> Webhook {
    let organization = principal.organizationID
    return try await pool.transaction(.api(principal)) { [self] db in
      var number = try db.query("SELECT nextval('webhook_id_seq')")[0]
      let id: WebhookID = try number.id()
      let sealed = try seal(secret, SealedPlace(table: "webhook", column: "secret", row: id.value))
      let created = try Self.webhook(
        try db.pipeline([
          Statement(
            """
            INSERT INTO webhook (id, organization_id, url, description, secret, created_by)
            VALUES ($1, $2, $3, $4, $5, $6)
            """,
            [
              .id(id), .id(organization), .text(url.description), .text(description), .bytes(sealed),
              .text(principal.name),
            ]), Self.read(id, organization),
        ])[1])
      // The path may be a secret of the receiver's.
      let entry = AuditEntry(
        "webhook.create", "webhook", id.value, after: try PostgresValue.jsonText(["host": url.host]))
      try db.commit([.audit([entry], by: principal)])
      return created
    }
  }

  /// Webhooks, by number.
  public func webhooks(_ page: PageRequest, for principal: Principal) async throws -> Page<Webhook> {
    let limit = try page.checkedLimit()
    let cursor = try Cursor<Int64>(page.cursor, list: "webhooks")
    return try await pool.transaction(.api(principal)) { db in
      let results = try db.commit([
        Statement(
          Self.webhookColumns
            + " WHERE w.organization_id = $1 AND ($2::bigint IS NULL OR w.id > $2) ORDER BY w.id LIMIT $3",
          [.id(principal.organizationID), .int(cursor?.id), .int(limit + 1)]),
        Statement("SELECT count(*) FROM webhook WHERE organization_id = $1", [.id(principal.organizationID)]),
      ])
      var total = results[1][0]
      return try Page(rows: try results[0].map(Self.webhook), limit: limit, total: try total.int()) { last in
        try Cursor<Int64>(list: "webhooks", key: 0, id: last.id.value).text()
      }
    }
  }

  /// One webhook. Throws ``StoreError/notFound(_:)``.
  public func webhook(_ id: WebhookID, for principal: Principal) async throws -> Webhook {
    try await pool.transaction(.api(principal)) { db in
      try Self.webhook(try db.commit([Self.read(id, principal.organizationID)])[0])
    }
  }

  /// Deletes a webhook with its deliveries; one that is under way may still arrive.
  public func deleteWebhook(_ id: WebhookID, by principal: Principal) async throws {
    try await pool.transaction(.api(principal)) { db in
      let deleted = try db.query(
        "DELETE FROM webhook WHERE id = $1 AND organization_id = $2 RETURNING url",
        [.id(id), .id(principal.organizationID)])
      guard var row = deleted.first else { throw StoreError.notFound("webhook") }
      let host = WebURL(try row.text())?.host ?? ""
      let entry = AuditEntry("webhook.delete", "webhook", id.value, before: try PostgresValue.jsonText(["host": host]))
      try db.commit([.audit([entry], by: principal)])
    }
  }

  /// Queues a test, which goes at once: before what waits already, and also to a webhook that waits after failures.
  public func testWebhook(_ id: WebhookID, by principal: Principal) async throws -> WebhookDelivery {
    let organization = principal.organizationID
    return try await pool.transaction(.api(principal)) { db in
      let waits = try db.query(
        "UPDATE webhook SET retry_at = NULL WHERE id = $1 AND organization_id = $2 RETURNING id",
        [.id(id), .id(organization)])
      if waits.count == 0 { throw StoreError.notFound("webhook") }
      let inserted = try db.query(
        """
        INSERT INTO webhook_delivery (organization_id, webhook_id, event, next_try_at)
        SELECT $1, $2, 'test', least(now(), (SELECT min(d.next_try_at) FROM webhook_delivery d
          WHERE d.webhook_id = $2 AND d.state = 'pending')) - interval '1 second'
        RETURNING id
        """, [.id(organization), .id(id)])
      guard var row = inserted.first else { throw StoreError.notFound("webhook") }
      let number: WebhookDeliveryID = try row.id()
      let rows = try db.commit([
        Self.read(number, organization), .audit([AuditEntry("webhook.test", "webhook", id.value)], by: principal),
      ])[0].map(Self.delivery)
      guard let delivery = rows.first else { throw StoreError.notFound("delivery of a webhook") }
      return delivery
    }
  }

  // MARK: Deliveries

  private static let deliveryColumns = """
    SELECT d.id, d.webhook_id, d.event, d.email_id, d.state, d.attempts,
      CASE d.state WHEN 'pending' THEN greatest(d.next_try_at, w.retry_at) END, d.last_status, d.last_error, d.created_at,
      d.finished_at
    FROM webhook_delivery d JOIN webhook w ON w.id = d.webhook_id
    """

  private static func delivery(_ row: inout Row) throws -> WebhookDelivery {
    WebhookDelivery(
      id: try row.id(), webhookID: try row.id(), event: try row.word(), emailID: try row.idOrNil(),
      state: try row.word(), attempts: Int(try row.int()), nextTryAt: try row.dateOrNil(),
      lastStatus: try row.intOrNil().map { Int($0) }, lastError: try row.textOrNil(), createdAt: try row.date(),
      finishedAt: try row.dateOrNil())
  }

  private static func read(_ id: WebhookDeliveryID, _ organization: OrganizationID) -> Statement {
    Statement(deliveryColumns + " WHERE d.id = $1 AND d.organization_id = $2", [.id(id), .id(organization)])
  }

  /// Deliveries, newest first.
  public func webhookDeliveries(
    _ filter: WebhookDeliveryFilter, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<WebhookDelivery> {
    let limit = try page.checkedLimit()
    let cursor = try Cursor<Int64>(page.cursor, list: "webhook-deliveries")
    let condition = """
       WHERE d.organization_id = $1 AND ($2::bigint IS NULL OR d.webhook_id = $2) AND ($3::text IS NULL OR d.state = $3)
      """
    let values: [PostgresValue] = [
      .id(principal.organizationID), .id(filter.webhookID), .text(filter.state?.rawValue),
    ]
    return try await pool.transaction(.api(principal)) { db in
      let results = try db.commit([
        Statement(
          Self.deliveryColumns + condition + " AND ($4::bigint IS NULL OR d.id < $4) ORDER BY d.id DESC LIMIT $5",
          values + [.int(cursor?.id), .int(limit + 1)]),
        Statement("SELECT count(*) FROM webhook_delivery d" + condition, values),
      ])
      var total = results[1][0]
      return try Page(rows: try results[0].map(Self.delivery), limit: limit, total: try total.int()) { last in
        try Cursor<Int64>(list: "webhook-deliveries", key: 0, id: last.id.value).text()
      }
    }
  }

  /// One delivery. Throws ``StoreError/notFound(_:)``.
  public func webhookDelivery(_ id: WebhookDeliveryID, for principal: Principal) async throws -> WebhookDelivery {
    let rows = try await pool.transaction(.api(principal)) { db in
      try db.commit([Self.read(id, principal.organizationID)])[0].map(Self.delivery)
    }
    guard let delivery = rows.first else { throw StoreError.notFound("delivery of a webhook") }
    return delivery
  }

  /// Has deliveries tried again at once; one answer per row, in the order asked. Their patience begins anew, and their
  /// webhooks wait no longer.
  public func retryDeliveries(
    _ ids: [WebhookDeliveryID], by principal: Principal
  ) async throws -> [DeliveryResult] {
    let organization = principal.organizationID
    return try await pool.transaction(.api(principal)) { db in
      let found = try db.query(
        "SELECT id, state FROM webhook_delivery WHERE id = ANY ($1) AND organization_id = $2 ORDER BY id FOR UPDATE",
        [.ids(ids), .id(organization)]
      ).map { row in (try row.id() as WebhookDeliveryID, try row.word() as WebhookDeliveryState) }
      let states = Dictionary(uniqueKeysWithValues: found)
      let again = found.filter { $0.1 != .delivered }.map(\.0)
      try db.commit([
        Statement(
          """
          UPDATE webhook_delivery SET state = 'pending', next_try_at = now(), waits_since = now(), finished_at = NULL
          WHERE id = ANY ($1)
          """, [.ids(again)]),
        Statement(
          """
          UPDATE webhook SET retry_at = NULL
          WHERE id IN (SELECT webhook_id FROM webhook_delivery WHERE id = ANY ($1)) AND retry_at IS NOT NULL
          """, [.ids(again)]),
        .audit(again.map { AuditEntry("webhook.retry", "webhook-delivery", $0.value) }, by: principal),
      ])
      return ids.map { id in
        switch states[id] {
        case nil: DeliveryResult(id: id, ok: false, code: "not-found", message: "there is no such delivery")
        case .delivered: DeliveryResult(id: id, ok: false, code: "delivered", message: "it has arrived already")
        default: DeliveryResult(id: id, ok: true)
        }
      }
    }
  }
}
