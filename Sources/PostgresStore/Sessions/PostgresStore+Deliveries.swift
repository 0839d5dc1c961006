import FoundationEssentials
import PostriderCore

extension PostgresStore: DeliveryQueue {
  /// Queues the announcement of stored messages to every webhook of the organization; part of the transaction that stores
  /// them, so no message is forgotten and none is announced that is not there.
  static func announcements(_ emails: [Int64], _ organization: OrganizationID) -> Statement {
    Statement(
      """
      INSERT INTO webhook_delivery (organization_id, webhook_id, event, email_id)
      SELECT w.organization_id, w.id, 'email.received', i.email_id
      FROM webhook w CROSS JOIN unnest($2) AS i (email_id) WHERE w.organization_id = $1
      """, [.id(organization), .ints(emails)])
  }

  /// Takes due deliveries for a while, a few of each webhook and none of those that are `busy`, so that a dead or slow
  /// one holds back no other.
  ///
  /// The end of the lease is the next attempt's time, and the number of the attempt names the claim: an answer that comes
  /// after another worker took over changes nothing.
  public func claimDeliveries(
    limit: Int, perWebhook: Int, except busy: [WebhookID], lease: Duration
  ) async throws -> [ClaimedDelivery] {
    let taken = try await pool.transaction(.worker) { db in
      try db.commit([
        Statement(
          """
          WITH due AS (
            SELECT d.id FROM (SELECT w.id FROM webhook w WHERE (w.retry_at IS NULL OR w.retry_at <= now())
              AND w.id <> ALL ($4) ORDER BY random()) w
            CROSS JOIN LATERAL (
              SELECT d.id FROM webhook_delivery d
              WHERE d.webhook_id = w.id AND d.state = 'pending' AND d.next_try_at <= now()
              ORDER BY d.next_try_at, d.id LIMIT $2 FOR UPDATE SKIP LOCKED
            ) d
            LIMIT $1
          ), taken AS (
            UPDATE webhook_delivery d SET attempts = d.attempts + 1, next_try_at = now() + $3 * interval '1 second'
            FROM due WHERE d.id = due.id
            RETURNING d.id, d.webhook_id, d.event, d.attempts, d.created_at, d.waits_since, d.email_id
          )
          SELECT t.id, t.webhook_id, w.url, w.secret, t.event, t.attempts, t.created_at,
            extract(epoch FROM now() - t.waits_since)::double precision, w.failures, e.id, e.mailbox_id, m.address,
            e.message_id, e.subject, e.sender, e.received_at, e.stored_at, e.size_octets, e.attachment_count,
            e.message_class
          FROM taken t JOIN webhook w ON w.id = t.webhook_id
            LEFT JOIN email e ON e.id = t.email_id LEFT JOIN mailbox m ON m.id = e.mailbox_id
          ORDER BY t.id
          """, [.int(Int64(limit)), .int(Int64(perWebhook)), .double(lease / .seconds(1)), .ids(busy)])
      ])[0]
    }
    return try taken.map { row in try claimed(&row) }.compactMap { $0 }
  }

  private func claimed(_ row: inout Row) throws -> ClaimedDelivery? {
    let id: WebhookDeliveryID = try row.id()
    let webhook: WebhookID = try row.id()
    let url = WebURL(try row.text())
    let sealed = try row.bytes()
    let event: WebhookEvent = try row.word()
    let attempt = Int(try row.int())
    let createdAt = try row.date()
    let age = try row.double()
    let failures = Int(try row.int())
    var email: AnnouncedEmail?
    if let number = try row.intOrNil() {
      email = AnnouncedEmail(
        id: EmailID(number), mailboxID: try row.id(), mailboxAddress: try row.textOrNil() ?? "",
        messageID: try row.textOrNil(), subject: try row.text(), from: try row.json(), receivedAt: try row.dateOrNil(),
        storedAt: try row.date(), sizeOctets: try row.int(), attachmentCount: Int(try row.int()),
        messageClass: try row.word())
    }
    do {
      let secret = try unseal(sealed, SealedPlace(table: "webhook", column: "secret", row: webhook.value))
      guard let url else { return nil }
      return ClaimedDelivery(
        id: id, webhookID: webhook, url: url, secret: secret, event: event, attempt: attempt, createdAt: createdAt,
        ageSeconds: age, failures: failures, email: email)
    } catch {
      // It waits for its lease to end, and others for the right key ring.
      logger.error(
        "The secret of a webhook cannot be decrypted", metadata: ["webhook.id": "\(webhook)", "error": "\(error)"])
      return nil
    }
  }

  /// It arrived: the webhook works again.
  public func delivered(_ delivery: ClaimedDelivery, status: Int) async throws {
    try await pool.transaction(.worker) { db in
      _ = try db.commit([
        Statement(
          """
          UPDATE webhook_delivery SET state = 'delivered', last_status = $3, last_error = NULL, finished_at = now()
          WHERE id = $1 AND attempts = $2 AND state = 'pending'
          """, [.id(delivery.id), .int(Int64(delivery.attempt)), .int(Int64(status))]),
        Statement(
          """
          UPDATE webhook SET failures = 0, retry_at = NULL, last_success_at = now(), last_error = NULL
          WHERE id = $1 AND (failures > 0 OR last_success_at IS NULL OR last_success_at < now() - interval '10 seconds')
          """, [.id(delivery.webhookID)]),
      ])
    }
  }

  /// It did not arrive; tried again after `retry`, given up with `nil`. The whole webhook waits for `pause`;
  /// `nil`: it is not to blame.
  public func deliveryFailed(
    _ delivery: ClaimedDelivery, status: Int?, reason: String, retry: Duration?, pause: Duration?
  ) async throws {
    let error = PostgresValue.text(Failure.presentable(reason))
    var statements = [
      Statement(
        """
        UPDATE webhook_delivery SET state = CASE WHEN $5::float8 IS NULL THEN 'dead' ELSE 'pending' END,
          next_try_at = CASE WHEN $5::float8 IS NULL THEN next_try_at ELSE now() + $5 * interval '1 second' END,
          finished_at = CASE WHEN $5::float8 IS NULL THEN now() END, last_status = $3, last_error = $4
        WHERE id = $1 AND attempts = $2 AND state = 'pending'
        """,
        [
          .id(delivery.id), .int(Int64(delivery.attempt)), .int(status.map { Int64($0) }), error,
          .double(retry.map { $0 / .seconds(1) }),
        ])
    ]
    if let pause {
      statements.append(
        Statement(
          """
          UPDATE webhook SET failures = greatest(failures, $4), last_failure_at = now(), last_error = $2,
            retry_at = greatest(retry_at, now() + $3 * interval '1 second')
          WHERE id = $1
          """,
          // Deliveries that were under way together are one failure of their webhook.
          [.id(delivery.webhookID), error, .double(pause / .seconds(1)), .int(Int64(delivery.failures) + 1)]))
    }
    try await pool.transaction(.worker) { [statements] db in _ = try db.commit(statements) }
  }

  private static let tidyBatch = 5_000

  /// Gives up what waits for longer than `patience`, and forgets what was finished long ago; at most 5,000 rows of each.
  /// Returns whether there were that many, so that there may be more.
  public func tidyDeliveries(patience: Duration, keepDelivered: Duration, keepDead: Duration) async throws -> Bool {
    let waits = PostgresValue.double(patience / .seconds(1))
    let delivered = PostgresValue.double(keepDelivered / .seconds(1))
    let dead = PostgresValue.double(keepDead / .seconds(1))
    return try await pool.transaction(.worker) { db in
      let tidied = try db.commit([
        Statement(
          """
          UPDATE webhook_delivery SET state = 'dead', finished_at = now(),
            last_error = coalesce(last_error, 'the webhook took nothing for too long')
          WHERE id IN (SELECT d.id FROM webhook_delivery d WHERE d.state = 'pending' AND d.next_try_at <= now()
            AND d.waits_since < now() - $1 * interval '1 second' LIMIT \(Self.tidyBatch) FOR UPDATE SKIP LOCKED)
          """, [waits]),
        Statement(
          """
          DELETE FROM webhook_delivery WHERE id IN (SELECT d.id FROM webhook_delivery d
            WHERE d.state <> 'pending' AND d.finished_at < now() - $1 * interval '1 second'
              AND (d.state = 'delivered' OR d.finished_at < now() - $2 * interval '1 second')
            LIMIT \(Self.tidyBatch) FOR UPDATE SKIP LOCKED)
          """, [delivered, dead]),
      ])
      return tidied.contains { $0.affected >= Self.tidyBatch }
    }
  }

  /// Returns soon after this process stored mail, or when the time is over.
  public func waitForMail(atMost duration: Duration) async { await announcer.mail.wait(timeout: duration) }
}
