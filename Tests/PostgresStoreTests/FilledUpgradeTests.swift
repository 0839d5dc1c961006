import PostriderCore
import Testing

@testable import PostgresStore

/// Migrations that look at rows of before them.
@Suite("Schema: migrations of databases with rows", .timeLimit(.minutes(3)))
struct FilledUpgradeTests {
  /// A database as an earlier release left it.
  private struct Old: Sendable {
    let server: TestServer
    let name: String

    init(_ name: String, version: Int) async throws {
      server = try await TestServer.shared.value
      self.name = name
      try await server.sql("postgres", "CREATE DATABASE \(name) OWNER pr_owner")
      try await migrate(to: version)
    }

    func migrate(to version: Int = Migration.newest) async throws {
      try await Migrator(
        url: server.url("pr_owner", name), applicationURL: server.url("pr_app", name),
        migrations: Array(Migration.all.prefix(version)), logger: .test
      ).migrate()
    }

    func sql(_ statements: String...) async throws {
      for statement in statements { try await server.sql(name, statement) }
    }

    /// The first column of each row.
    func rows(_ statement: String) async throws -> [String] {
      try await server.sql(name, statement).map { try $0.text() }
    }
  }

  @Test("0013: people get the strongest role that they have a valid token of, profiles and queues get their owners")
  func people() async throws {
    let old = try await Old("filled_0012", version: 12)
    try await old.sql(
      "INSERT INTO organization (id, name) VALUES (1, 'One'), (2, 'Two'), (3, 'Empty')",
      """
      INSERT INTO app_user (id, organization_id, name, address, address_key, is_active)
      SELECT i, o, n, n || '@example.com', n || '@example.com', a FROM (VALUES
        (1, 1, 'gone', false), (2, 1, 'ada', true), (3, 1, 'max', true), (4, 1, 'ann', true), (5, 1, 'ron', true),
        (6, 1, 'own', true), (7, 1, 'late', true), (8, 1, 'zed', true), (11, 2, 'olga', true), (12, 2, 'ina', true)
      ) AS v (i, o, n, a)
      """,
      // ada: two roles; late: only what is over; zed: a second administrator; gone: an administrator who left.
      """
      INSERT INTO api_token (organization_id, user_id, name, role, token_hash, expires_at, revoked_at)
      SELECT o, u, 't', r, sha256(convert_to(u || r, 'UTF8')), e, v FROM (VALUES
        (1, 1, 'administrator', NULL, NULL), (1, 2, 'reader', NULL, NULL), (1, 2, 'administrator', NULL, NULL),
        (1, 3, 'mailbox-manager', now() + interval '1 day', NULL), (1, 4, 'approver', NULL, NULL),
        (1, 5, 'reader', NULL, NULL), (1, 5, 'approver', NULL, NULL),
        (1, 7, 'administrator', now() - interval '1 day', NULL),
        (1, 7, 'mailbox-manager', NULL, now()), (1, 8, 'administrator', NULL, NULL),
        (2, 11, 'mailbox-manager', NULL, NULL), (2, 12, 'administrator', NULL, NULL)
      ) AS x (o, u, r, e, v)
      """,
      """
      INSERT INTO server_profile (id, organization_id, name, name_key, type, incoming_host, incoming_port, incoming_tls,
        incoming_credentials, incoming_mechanism, outgoing_host, outgoing_port, outgoing_tls, outgoing_credentials,
        outgoing_mechanism)
      SELECT i, o, 'p' || i, 'p' || i, 'pop3-smtp', 'h', 995, 'implicit', 'mailbox', 'automatic', 'h', 465, 'implicit',
        'mailbox', 'automatic' FROM (VALUES (1, 1), (2, 1), (3, 2), (4, 2)) AS v (i, o)
      """,
      // 1 by max; 2 by nobody who is known; 3 by olga, and touched by others; 4 by a person of another organization.
      """
      INSERT INTO audit (organization_id, user_id, user_name, action, subject_kind, subject_id) VALUES
        (1, 3, 'max', 'profile.create', 'profile', 1), (1, 2, 'ada', 'profile.update', 'profile', 1),
        (1, 99, 'who', 'profile.create', 'profile', 2), (2, 11, 'olga', 'profile.create', 'profile', 3),
        (1, 2, 'ada', 'profile.create', 'profile', 3), (2, 2, 'ada', 'profile.create', 'profile', 4)
      """,
      """
      INSERT INTO shared_queue (id, organization_id, name, address, address_key) VALUES
        (1, 1, 'Sales', 'sales@example.com', 'sales@example.com'), (2, 2, 'Help', 'help@example.com', 'help@example.com'),
        (3, 3, 'Lost', 'lost@example.com', 'lost@example.com')
      """,
      """
      INSERT INTO mailbox (id, organization_id, address, address_key, user_id, queue_id, profile_id, incoming_method,
        outgoing_method, incoming_status, incoming_enabled, approval)
      SELECT i, o, a, a, u, q, p, 'server-side-sync', 'none', 'success', true, 'approved' FROM (VALUES
        (1, 1, 'own@example.com', 6, NULL::int, 1), (2, 1, 'sales@example.com', NULL, 1, 1),
        (3, 2, 'help@example.com', NULL, 2, 3), (4, 2, 'olga@example.com', 11, NULL, NULL)) AS v (i, o, a, u, q, p)
      """,
      """
      INSERT INTO mailbox_schedule (mailbox_id, organization_id, profile_id, kind, job_class, enabled)
      SELECT id, organization_id, profile_id, k, 2, k <> 's' FROM mailbox CROSS JOIN unnest(ARRAY['p', 's', 't']) AS k
      """)
    try await old.migrate()

    #expect(
      try await old.rows("SELECT name || ' ' || role FROM app_user ORDER BY id") == [
        "gone administrator", "ada administrator", "max mailbox-manager", "ann approver", "ron reader", "own owner",
        "late owner", "zed administrator", "olga mailbox-manager", "ina administrator",
      ])
    #expect(
      try await old.rows("SELECT name || ' ' || coalesce(owner_id::text, '-') FROM server_profile ORDER BY id") == [
        "p1 3", "p2 -", "p3 11", "p4 -",
      ])
    // The first administrator who is still there, of the same organization; nobody where there is none.
    #expect(
      try await old.rows("SELECT name || ' ' || coalesce(owner_id::text, '-') FROM shared_queue ORDER BY id") == [
        "Sales 2", "Help 12", "Lost -",
      ])
    #expect(try await old.rows("SELECT DISTINCT kind FROM api_token") == ["token"])
    // Row-level security holds again for the tables that were looked at without it.
    let open = try await old.rows(
      """
      SELECT relname::text FROM pg_class WHERE relname IN ('app_user', 'api_token', 'shared_queue', 'server_profile', 'audit',
        'oauth_grant', 'oauth_client', 'mailbox', 'address_owner') AND NOT relforcerowsecurity
      """)
    #expect(open.isEmpty)
    // Whoever received goes on, and has the address.
    #expect(
      try await old.rows("SELECT mailbox_id::text FROM address_owner ORDER BY mailbox_id") == ["1", "2", "3", "4"])
    #expect(try await old.rows("SELECT address FROM mailbox WHERE NOT incoming_enabled").isEmpty)
  }

  @Test("0018: of organizations that receive one address the first one keeps it; the others stop and are told")
  func ownership() async throws {
    let old = try await Old("filled_0017", version: 17)
    try await old.sql(
      "INSERT INTO organization (id, name) SELECT i, 'O' || i FROM generate_series(1, 3) AS i",
      """
      INSERT INTO app_user (id, organization_id, name, address, address_key)
      SELECT i, i, 'u', 'u@example.com', 'u@example.com' FROM generate_series(1, 3) AS i
      """,
      """
      INSERT INTO server_profile (id, organization_id, name, name_key, type, incoming_host, incoming_port, incoming_tls,
        incoming_credentials, incoming_mechanism, outgoing_host, outgoing_port, outgoing_tls, outgoing_credentials,
        outgoing_mechanism)
      SELECT i, i, 'p', 'p', 'pop3-smtp', 'h', 995, 'implicit', 'mailbox', 'automatic', 'h', 465, 'implicit',
        'mailbox', 'automatic' FROM generate_series(1, 3) AS i
      """,
      // a: three organizations, the second was enabled first. b: two, nobody knows when, the older one wins. c: one
      // of two is inactive. d: one of two receives nothing. e: disabled by an error. f: one organization alone.
      """
      INSERT INTO mailbox (id, organization_id, address, address_key, user_id, profile_id, incoming_method,
        outgoing_method, incoming_status, incoming_enabled, outgoing_status, outgoing_enabled, approval, is_active,
        created_at)
      SELECT i, o, k || '@example.com', k || '@example.com', o, o, method, 'server-side-sync',
        CASE WHEN enabled THEN 'success' ELSE 'failure' END, enabled, 'success', true, 'approved', active,
        now() - age * interval '1 day' FROM (VALUES
        (11, 1, 'a', 'server-side-sync', true, true, 9), (12, 2, 'a', 'server-side-sync', true, true, 5),
        (13, 3, 'a', 'server-side-sync', true, true, 7), (21, 1, 'b', 'server-side-sync', true, true, 2),
        (22, 2, 'b', 'server-side-sync', true, true, 3), (31, 1, 'c', 'server-side-sync', true, false, 9),
        (32, 2, 'c', 'server-side-sync', true, true, 1), (41, 1, 'd', 'none', true, true, 9),
        (42, 2, 'd', 'server-side-sync', true, true, 1), (51, 1, 'e', 'server-side-sync', false, true, 9),
        (61, 1, 'f', 'server-side-sync', true, true, 9)) AS v (i, o, k, method, enabled, active, age)
      """,
      """
      INSERT INTO mailbox_schedule (mailbox_id, organization_id, profile_id, kind, job_class, enabled, next_due_at)
      SELECT id, organization_id, profile_id, k, 2, incoming_enabled, now()
      FROM mailbox CROSS JOIN unnest(ARRAY['p', 's', 't']) AS k
      """,
      """
      INSERT INTO alert (organization_id, mailbox_id, level, code, direction, text, first_seen)
      SELECT organization_id, id, 'information', 'mailbox.connected.incoming', 'incoming', 'x',
        now() - CASE id WHEN 12 THEN 4 ELSE 3 END * interval '1 day' FROM mailbox WHERE id IN (11, 12, 13)
      """)
    try await old.migrate()

    #expect(
      try await old.rows("SELECT address_key || ' ' || mailbox_id FROM address_owner ORDER BY 1") == [
        "a@example.com 12", "b@example.com 22", "c@example.com 32", "d@example.com 42", "f@example.com 61",
      ])
    let stopped = try await old.rows(
      """
      SELECT m.id::text FROM mailbox m JOIN mailbox_schedule s ON s.mailbox_id = m.id AND s.kind = 'p'
      JOIN alert a ON a.mailbox_id = m.id AND a.code = 'ownership.other-organization' AND a.resolved_at IS NULL
      WHERE m.incoming_failure_code = a.code AND NOT m.incoming_enabled AND m.incoming_status = 'failure'
        AND NOT s.enabled AND s.generation = 2 AND m.outgoing_enabled ORDER BY m.id
      """)
    #expect(stopped == ["11", "13", "21"])
    #expect(try await old.rows("SELECT id::text FROM alert WHERE code LIKE 'ownership.%'").count == 3)
    #expect(
      try await old.rows(
        "SELECT mailbox_id::text FROM mailbox_schedule WHERE kind = 's' AND enabled AND mailbox_id IN (11, 13, 21)"
      ).count == 3)
  }
}
