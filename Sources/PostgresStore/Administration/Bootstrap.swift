import Logging
import PostriderCore

/// Makes an organization with its first administrator, over the migrating role's connection.
///
/// The only thing that is done without a principal; used by `postrider init` and `postrider dev`.
public struct Bootstrap: Sendable {
  private let connection: PostgresConnection
  private let logger: Logger

  /// - Parameters:
  ///   - url: libpq URI of the role that migrated the database.
  ///   - logger: Told of what is made.
  public init(url: String, logger: Logger) {
    connection = PostgresConnection(
      url: ConnectionURL(url),
      options: PostgresConnection.Options(
        application: "postrider init", connectTimeout: .seconds(10), statementTimeout: .seconds(30)))
    self.logger = logger
  }

  /// Creates an organization and a token for its administrator, which is shown this once.
  ///
  /// Throws ``StoreError/conflict(code:message:)`` `name-taken`.
  public func createOrganization(
    name: String, administratorName: String, administratorAddress: String
  ) async throws -> (OrganizationID, token: Secret) {
    let made = try await make(name, administratorName, administratorAddress, reuses: false)
    return (made.organization, made.token)
  }

  /// The organization of this name, made when there is none, and a fresh token; the token given by the call before is
  /// revoked.
  public func ensureOrganization(
    name: String, administratorName: String, administratorAddress: String
  ) async throws -> (OrganizationID, token: Secret) {
    let made = try await make(name, administratorName, administratorAddress, reuses: true)
    return (made.organization, made.token)
  }

  private struct Made: Sendable {
    var organization: OrganizationID
    var token: Secret
  }

  private func make(_ name: String, _ person: String, _ address: String, reuses: Bool) async throws -> Made {
    var problems = FieldProblems()
    problems.check(name, at: "/name", maximum: 100, minimum: 1)
    problems.check(person, at: "/administratorName", maximum: 200, minimum: 1)
    AddressRules.check(address, at: "/administratorAddress", &problems)
    try problems.throwIfAny()
    let token = Token.generate()
    do {
      let organization = try await connection.run { db in
        let existing: OrganizationID? = try db.transaction(.worker) { db in
          try db.commit([Statement("SELECT id FROM organization WHERE name = $1", [.text(name)])])[0]
            .map { try $0.id() as OrganizationID }.first
        }
        if existing != nil && !reuses {
          throw StoreError.conflict(code: "name-taken", message: "there is already an organization “\(name)”")
        }
        let id = try existing ?? db.createOrganization(name)
        try db.transaction(.api(id)) { db in
          _ = try db.commit([Self.administrator(id, person, address), Self.token(id, address, token)])
        }
        return id
      }
      await connection.close()
      logger.notice("Made a token for the administrator", metadata: ["organization.id": "\(organization)"])
      return Made(organization: organization, token: token)
    } catch {
      await connection.close()
      throw PostgresError.storeError(error)
    }
  }

  private static func administrator(_ id: OrganizationID, _ name: String, _ address: String) -> Statement {
    Statement(
      """
      INSERT INTO app_user AS u (organization_id, name, address, address_key) VALUES ($1, $2, $3, lower($3))
      ON CONFLICT (organization_id, address_key) DO UPDATE SET name = u.name
      """, [.id(id), .text(name), .text(address)])
  }

  private static func token(_ id: OrganizationID, _ address: String, _ token: Secret) -> Statement {
    Statement(
      """
      WITH person AS (SELECT id FROM app_user WHERE organization_id = $1 AND address_key = lower($2)),
      revoked AS (
        UPDATE api_token SET revoked_at = now()
        WHERE organization_id = $1 AND user_id = (SELECT id FROM person) AND name = 'bootstrap' AND revoked_at IS NULL)
      INSERT INTO api_token (organization_id, user_id, name, role, token_hash)
      SELECT $1, id, 'bootstrap', 'administrator', $3 FROM person
      """, [.id(id), .text(address), .bytes(Token.hash(token))])
  }
}

extension PostgresConnection {
  /// Inserts as the owner of the tables, which the application never is: only it may create organizations. As a member
  /// of postrider_api it is held to the organization set here.
  fileprivate func createOrganization(_ name: String) throws -> OrganizationID {
    do {
      try script("BEGIN")
      var row = try query("SELECT nextval(pg_get_serial_sequence('organization', 'id'))")[0]
      let id: OrganizationID = try row.id()
      try query("SELECT set_config('postrider.organization', $1, true)", [.text(id.description)])
      try query("INSERT INTO organization (id, name) VALUES ($1, $2)", [.id(id), .text(name)])
      try script("COMMIT")
      return id
    } catch let error as PostgresError {
      try script("ROLLBACK")
      guard error.violates("organization_name_key") else { throw error }
      throw StoreError.conflict(code: "name-taken", message: "there is already an organization “\(name)”")
    }
  }
}
