import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Secrets: encrypted at rest (M9)")
struct SecretTests {
  private let place = SealedPlace(table: "mailbox", column: "password", row: 7)

  @Test("a value opens in its own place and nowhere else")
  func opensInItsPlace() throws {
    let ring = KeyRing.generate()
    let sealed = try ring.seal(Secret("pässword"), for: place)
    #expect(try ring.open(sealed, for: place) == Secret("pässword"))
    #expect(KeyRing.keyID(of: sealed) == ring.ids[0])
    for other in [
      SealedPlace(table: "mailbox", column: "password", row: 8),
      SealedPlace(table: "mailbox", column: "other", row: 7),
      SealedPlace(table: "server_profile", column: "password", row: 7),
    ] {
      #expect(throws: StoreError.self) { try ring.open(sealed, for: other) }
    }
    for index in sealed.indices {
      var damaged = sealed
      damaged[index] ^= 1
      #expect(throws: StoreError.self, "octet \(index)") { try ring.open(damaged, for: place) }
    }
    #expect(throws: StoreError.self) { try ring.open([], for: place) }
    #expect(try ring.seal(Secret("x"), for: place) != ring.seal(Secret("x"), for: place))
  }

  @Test("a generated key has an id of its own, so that another ring misses it")
  func generatedID() throws {
    let ring = KeyRing.generate()
    #expect(ring.ids.count == 1 && ring.ids[0].wholeMatch(of: /k[0-9a-f]{8}/) != nil)
    #expect(try KeyRing(ring.text).ids == ring.ids)
    let sealed = try ring.seal(Secret("x"), for: place)
    #expect(throws: StoreError.missingKey(id: ring.ids[0])) { try KeyRing.generate().open(sealed, for: place) }
  }

  @Test("an old key still opens after rotation; a missing one is named")
  func rotation() throws {
    let old = KeyRing.generate(id: "2024")
    let sealed = try old.seal(Secret("x"), for: place)
    let rotated = try KeyRing(old.adding(id: "2025").text)
    #expect(rotated.ids == ["2025", "2024"])
    #expect(try rotated.open(sealed, for: place) == Secret("x"))
    #expect(KeyRing.keyID(of: try rotated.seal(Secret("x"), for: place)) == "2025")
    #expect(throws: StoreError.missingKey(id: "2024")) { try KeyRing.generate(id: "2025").open(sealed, for: place) }
  }

  @Test(
    "a ring's text is refused with the line that is wrong",
    arguments: [
      ("", KeyRing.FormatError.empty), ("# nothing\n\n", .empty), ("k1", .line(1)), ("\nk1: AAAA", .line(2)),
      ("a b: \(String(repeating: "A", count: 43))=", .line(1)),
      (
        "k: \(String(repeating: "A", count: 43))=\nk: \(String(repeating: "B", count: 43))=",
        .duplicate(id: "k")
      ),
    ])
  func format(_ text: String, _ error: KeyRing.FormatError) {
    #expect(throws: error) { try KeyRing(Secret(text)) }
  }

  @Test("a ring prints its ids and nothing else")
  func printing() throws {
    let ring = try KeyRing(Secret("  k1 : \(String(repeating: "A", count: 43))=\r\n"))
    var dumped = ""
    dump(ring, to: &dumped)
    #expect("\(ring) \(String(reflecting: ring)) \(dumped)".contains("AAAA") == false)
    #expect("\(ring)" == "KeyRing(k1)")
    #expect("\(ConnectionURL("postgresql://u:hunter2@h/db"))".contains("hunter2") == false)
  }

  @Test("no column of the database holds a password or a token")
  func noPlainTextAtRest() async throws {
    try await TestDatabase.with { database in
      let secrets = ["mailbox-password-1", "profile-password-2", database.token.revealed]
      let draft = ProfileDraft(
        name: "P", type: .pop3SMTP, isDefault: true,
        incoming: ServerDraft(
          host: "pop.example.com", credentials: .profile, userName: "svc", password: Secret(secrets[1])),
        outgoing: ServerDraft(host: "smtp.example.com"))
      let profile = try await database.store.createProfile(
        try ProfileRules().resolve(draft), by: database.principal)
      #expect(profile.incoming.passwordSet && profile.outgoing.passwordSet)
      let mailbox = try await database.mailbox("a@example.com", password: secrets[0])
      #expect(mailbox.passwordSet)
      let columns = try await database.sql(
        """
        SELECT table_name::text, column_name::text FROM information_schema.columns
        WHERE table_schema = 'public' AND data_type IN ('text', 'bytea', 'jsonb')
        """
      ).map { row in (try row.text(), try row.text()) }
      #expect(columns.count > 50)
      for (table, column) in columns {
        for secret in secrets {
          let found = try await database.int(
            """
            SELECT count(*) FROM \(table) WHERE position($1 IN "\(column)"::text) > 0
              OR position(encode($1::bytea, 'hex') IN "\(column)"::text) > 0
            """, [.text(secret)])
          #expect(found == 0, "\(table).\(column)")
        }
      }
    }
  }
}
