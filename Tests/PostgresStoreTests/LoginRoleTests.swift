import Logging
import PostgresStore
import PostriderCore
import PostriderTesting
import PrivateServers
import Testing

@Suite("Schema: the application's login role")
struct LoginRoleTests {
  private static let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
  private static let password = "p'a\"s\\s%word"
  private static let passwordInURL = "p'a%22s%5Cs%25word"

  private let postgres: PrivatePostgres
  private let database: String
  private let role: String

  init() async throws {
    postgres = try await TestServers.shared.postgres()
    let prefix = await TestServers.shared.uniquePrefix("login")
    database = "\(prefix)database"
    // Quotes and capitals must survive.
    role = "\(prefix)Role\"X"
    try await postgres.createDatabase(database)
  }

  private func url(_ user: String, password: String? = nil) -> String {
    let name = user.replacing("\"", with: "%22")
    return "postgresql://\(name)\(password.map { ":\($0)" } ?? "")@/\(database)?host=\(postgres.socketDirectory)"
  }

  private func migrate(as owner: String? = nil, application: String) async throws -> [Int] {
    try await Migrator(
      url: owner ?? postgres.url(database: database), applicationURL: application, logger: Self.quiet
    ).migrate()
  }

  private func stored() async throws -> String {
    try await postgres.execute(
      "SELECT rolcanlogin, rolsuper, rolpassword FROM pg_authid WHERE rolname = '\(role)'", database: database)
  }

  @Test("a missing role is made with the URL's password as a SCRAM verifier, and may work with the schema")
  func makesMissingRole() async throws {
    #expect(try await !migrate(application: url(role, password: Self.passwordInURL)).isEmpty)
    let row = try await stored()
    #expect(row.hasPrefix("t|f|SCRAM-SHA-256$"))
    #expect(!row.contains(Self.password))
    #expect(try await postgres.execute("SELECT pg_has_role('\(role)', 'postrider_worker', 'MEMBER')") == "t")
  }

  @Test("an existing role keeps its password")
  func keepsExistingRole() async throws {
    _ = try await migrate(application: url(role, password: "first"))
    let first = try await stored()
    #expect(try await migrate(application: url(role, password: "second")).isEmpty)
    #expect(try await stored() == first)
  }

  @Test("a missing role without a password is named, and nothing is migrated")
  func needsPassword() async throws {
    let error = await #expect(throws: StoreError.self) { try await migrate(application: url(role)) }
    #expect(error?.description.contains("holds no password") == true)
    #expect(try await stored() == "")
    #expect(try await postgres.execute("SELECT to_regclass('mailbox') IS NULL", database: database) == "t")
  }

  @Test("who has made the group roles may act as them, also where that does not follow from making them (16 and up)")
  func maker() async throws {
    // On the shared server another role has made them.
    let own = try await TestServers.shared.dedicatedPostgres()
    try await own.execute("CREATE ROLE maker LOGIN CREATEROLE; CREATE DATABASE made OWNER maker;")
    let place = "@/made?host=\(own.socketDirectory)"
    let application = "postgresql://app:word\(place)"
    let migrator = Migrator(url: "postgresql://maker\(place)", applicationURL: application, logger: Self.quiet)
    #expect(try await !migrator.migrate().isEmpty)
    let (organization, token) = try await Bootstrap(url: "postgresql://maker\(place)", logger: Self.quiet)
      .createOrganization(name: "Example", administratorName: "Ada", administratorAddress: "ada@example.com")
    let store = PostgresStore(
      configuration: PostgresStoreConfiguration(url: application), logger: Self.quiet)
    #expect(try await store.principal(token: token)?.organizationID == organization)
    await store.close()
    await own.stop()
  }

  @Test("a migrating role that may not create roles says what an administrator has to do, without the password")
  func mayNotCreate() async throws {
    _ = try await migrate(application: url(role, password: "first"))
    let owner = role.replacing("Role\"X", with: "owner")
    try await postgres.execute(
      """
      CREATE ROLE "\(owner)" LOGIN; GRANT postrider_api, postrider_worker TO "\(owner)";
      GRANT ALL ON schema_migration TO "\(owner)"; GRANT ALL ON SCHEMA public TO "\(owner)";
      """, database: database)
    let error = await #expect(throws: StoreError.self) {
      try await migrate(as: url(owner), application: url("\(owner)-2", password: "a-password"))
    }
    #expect(error?.description.contains("may not create it") == true)
    #expect(error?.description.contains("a-password") == false)
  }
}
