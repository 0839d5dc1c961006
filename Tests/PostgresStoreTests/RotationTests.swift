import PostriderCore
import Synchronization
import Testing

@testable import PostgresStore

@Suite("Keys: encrypting anew")
struct RotationTests {
  /// Octets that are no secrets of the key ring: hashes, fingerprints and messages.
  private static let otherOctets = [
    "api_token.token_hash", "content_chunk.octets", "ledger.content_hash", "oauth_consent.state_hash",
    "idempotency_key.request_hash",
  ]

  @Test("every column of octets is either encrypted anew or known to be none of the ring's")
  func columns() async throws {
    try await TestDatabase.with { database in
      let columns = try await database.sql(
        """
        SELECT c.relname::text || '.' || a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
          AND a.attnum > 0 AND NOT a.attisdropped AND a.atttypid = 'bytea'::regtype ORDER BY 1
        """
      ).map { try $0.text() }
      let sealed = SealedColumn.all.map { "\($0.table).\($0.column)" }
      #expect(columns.filter { !sealed.contains($0) && !Self.otherOctets.contains($0) } == [])
      #expect(Set(sealed).isSubset(of: columns))
    }
  }

  /// Fills every encrypted column of two organizations.
  private func fill(_ database: TestDatabase, mailboxes: Int) async throws -> [Mailbox] {
    let draft = ProfileDraft(
      name: "P", type: .pop3SMTP, isDefault: true,
      incoming: ServerDraft(host: "pop.example.com", credentials: .profile, userName: "svc", password: Secret("in")),
      outgoing: ServerDraft(host: "smtp.example.com", credentials: .profile, userName: "svc", password: Secret("out")),
      useSameSettingsForOutgoing: false)
    _ = try await database.store.createProfile(try ProfileRules().resolve(draft), by: database.principal)
    _ = try await database.profile("Own", isDefault: false)
    var made: [Mailbox] = []
    for number in 0..<mailboxes {
      made.append(
        try await database.store.createMailbox(
          MailboxDraft(
            address: "m\(number)@example.com", incomingMethod: SyncMethod.none, password: Secret("secret \(number)")),
          by: database.principal))
    }
    try await database.store.storeAccessToken(
      Secret("token"), expiresAt: .distantFuture, mailbox: made[0].id, by: database.principal)
    try await fillOAuth(database, profile: try #require(made[0].profileID), mailbox: made[0].id)
    let other = try await database.otherPrincipal()
    _ = try await database.store.createMailbox(
      MailboxDraft(address: "o@example.org", password: Secret("theirs")), by: other)
    return made
  }

  /// One row of each table that came with OAuth, webhooks and imports: six values.
  private func fillOAuth(_ database: TestDatabase, profile: ProfileID, mailbox: MailboxID) async throws {
    func sealed(_ table: String, _ column: String, _ row: Int64) throws -> PostgresValue {
      .bytes(try database.ring.seal(Secret("x"), for: SealedPlace(table: table, column: column, row: row)))
    }
    try await database.sql(
      """
      INSERT INTO oauth_client (profile_id, organization_id, flow, client_id, token_url, scopes, secret, access_token)
      SELECT id, organization_id, 'client-credentials', 'c', 'https://login.example.com/token', 's', $2, $3
      FROM server_profile WHERE id = $1
      """,
      [
        .id(profile), try sealed("oauth_client", "secret", profile.value),
        try sealed("oauth_client", "access_token", profile.value),
      ])
    try await database.sql(
      "UPDATE oauth_grant SET refresh_token = $2 WHERE mailbox_id = $1",
      [.id(mailbox), try sealed("oauth_grant", "refresh_token", mailbox.value)])
    try await database.sql(
      """
      INSERT INTO oauth_consent (id, organization_id, mailbox_id, user_id, state_hash, code_verifier, redirect_url,
        expires_at)
      SELECT 1, m.organization_id, m.id, (SELECT min(id) FROM app_user WHERE organization_id = m.organization_id),
        sha256('state'), $2, 'https://mail.example.com/callback', now() + interval '10 minutes'
      FROM mailbox m WHERE m.id = $1
      """, [.id(mailbox), try sealed("oauth_consent", "code_verifier", 1)])
    try await database.sql(
      """
      INSERT INTO webhook (id, organization_id, url, secret, created_by)
      SELECT 1, organization_id, 'https://example.com/', $2, 'test' FROM mailbox WHERE id = $1
      """, [.id(mailbox), try sealed("webhook", "secret", 1)])
    try await database.sql(
      """
      INSERT INTO mailbox_import_row (id, batch_id, position, organization_id, draft, password)
      SELECT 1, 1, 1, organization_id, '{}', $2 FROM mailbox WHERE id = $1
      """, [.id(mailbox), try sealed("mailbox_import_row", "password", 1)])
  }

  private func groups(_ database: TestDatabase, _ ring: KeyRing) async throws -> [SealedGroup] {
    let examination = DatabaseExamination(url: database.server.url("pr_app", database.name))
    defer { Task { await examination.close() } }
    return try await examination.sealedGroups(ring)
  }

  @Test("every secret of every organization comes under the first key, and nothing else of a row changes")
  func rotates() async throws {
    try await TestDatabase.with { database in
      let mailboxes = try await fill(database, mailboxes: 7)
      let all = Set(SealedColumn.all.map { "\($0.table).\($0.column)" })
      #expect(Set(try await groups(database, database.ring).map(\.place)) == all)
      let old = database.ring.ids[0]
      let ring = database.ring.adding(id: "new")
      let url = database.server.url("pr_app", database.name)
      let rest = "SELECT sum(version)::bigint FROM mailbox"
      let before = try await database.int(rest)

      let dry = try await SecretRotation(url: url, ring: ring, batch: 3).rotate(dryRun: true)
      #expect(dry.changed == 17 && dry.kept == 0)
      #expect(try await groups(database, ring).allSatisfy { $0.keyID == old })

      let told = Mutex(0)
      let report = try await SecretRotation(url: url, ring: ring, batch: 3).rotate { _ in told.withLock { $0 += 1 } }
      #expect(report.changed == 17 && report.kept == 0 && report.unreadable.isEmpty)
      #expect(told.withLock { $0 } >= 6)
      let after = try await groups(database, ring)
      #expect(after.allSatisfy { $0.keyID == "new" && $0.state == .readable })
      #expect(after.reduce(0) { $0 + $1.count } == 17)
      // What stood there is what stands there now, also for those who know the new key alone.
      let alone = try KeyRing(Secret(String(ring.text.revealed.split(separator: "\n")[0])))
      let sealed = try await database.sql("SELECT password FROM mailbox WHERE id = \(mailboxes[3].id)")
        .map { try $0.bytesOrNil() ?? [] }[0]
      let place = SealedPlace(table: "mailbox", column: "password", row: mailboxes[3].id.value)
      #expect(try alone.open(sealed, for: place).revealed == "secret 3")
      #expect(try await database.int(rest) == before)
      #expect(try await SecretRotation(url: url, ring: ring).rotate().changed == 0)
    }
  }

  @Test("what cannot be read is counted by the id of its key and left as it is; the rest is done")
  func unreadable() async throws {
    try await TestDatabase.with { database in
      let mailboxes = try await fill(database, mailboxes: 3)
      let url = database.server.url("pr_app", database.name)
      let old = database.ring.ids[0]
      // Another key: nothing opens.
      let foreign = KeyRing.generate(id: "foreign")
      let none = try await SecretRotation(url: url, ring: foreign).rotate()
      #expect(none.changed == 0 && none.unreadable == [old: 13])
      try await database.sql("UPDATE mailbox SET password = '\\x0102' WHERE id = \(mailboxes[1].id)")
      let report = try await SecretRotation(url: url, ring: database.ring.adding(id: "new")).rotate()
      #expect(report.changed == 12 && report.unreadable == ["": 1])
    }
  }

  @Test("a password that is changed meanwhile stays the changed one")
  func races() async throws {
    try await TestDatabase.with(poolSize: 2) { database in
      let mailboxes = try await fill(database, mailboxes: 40)
      let ring = database.ring.adding(id: "new")
      let url = database.server.url("pr_app", database.name)
      // By a process that still encrypts with the old key.
      let writing = Task {
        for mailbox in mailboxes {
          let place = SealedPlace(table: "mailbox", column: "password", row: mailbox.id.value)
          let sealed = try database.ring.seal(Secret("changed"), for: place)
          try await database.sql("UPDATE mailbox SET password = $1 WHERE id = \(mailbox.id)", [.bytes(sealed)])
        }
      }
      for _ in 0..<5 { _ = try await SecretRotation(url: url, ring: ring, batch: 4).rotate() }
      try await writing.value
      let last = try await SecretRotation(url: url, ring: ring, batch: 4).rotate()
      #expect(last.unreadable.isEmpty)
      for mailbox in mailboxes {
        let sealed = try await database.sql("SELECT password FROM mailbox WHERE id = \(mailbox.id)")
          .map { try $0.bytesOrNil() ?? [] }[0]
        let place = SealedPlace(table: "mailbox", column: "password", row: mailbox.id.value)
        #expect(KeyRing.keyID(of: sealed) == "new")
        #expect(try ring.open(sealed, for: place).revealed == "changed")
      }
    }
  }
}
