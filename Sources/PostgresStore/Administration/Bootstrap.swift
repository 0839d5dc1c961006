import Logging
import PostriderCore

/// Makes organizations and tokens over the migrating role's connection.
///
/// The only thing that is done without a principal; used by `postrider init`, `token create` and `dev`.
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
    let order = try Self.first(name, administratorName, administratorAddress)
    let made = try await make(order, in: name, .absent)
    return (made.organization, made.token)
  }

  /// The organization of this name, made when there is none, and a fresh token; the token given by the call before is
  /// revoked.
  public func ensureOrganization(
    name: String, administratorName: String, administratorAddress: String
  ) async throws -> (OrganizationID, token: Secret) {
    let order = try Self.first(name, administratorName, administratorAddress)
    let made = try await make(order, in: name, .either)
    return (made.organization, made.token)
  }

  /// Makes a token in an organization that is there, for a person who is entered when not known yet. It is shown this
  /// once.
  ///
  /// - Parameters:
  ///   - organization: The organization's name.
  ///   - address: The person's e-mail address, or one that stands for a program.
  ///   - role: What whoever has the token may do.
  ///   - name: What the token is for.
  ///   - replaces: Whether the person's tokens of this name are revoked.
  /// - Returns: The token. Throws ``StoreError/notFound(_:)`` when there is no such organization.
  public func createToken(
    organization: String, address: String, role: Role, name: String, replaces: Bool = false
  ) async throws -> Secret {
    var problems = FieldProblems()
    problems.check(name, at: "/name", maximum: 100, minimum: 1)
    AddressRules.check(address, at: "/address", &problems)
    try problems.throwIfAny()
    let order = Order(person: address, address: address, role: role, name: name, replaces: replaces)
    return try await make(order, in: organization, .present).token
  }

  /// A token to be made, and for whom.
  private struct Order: Sendable {
    /// The display name of a person who is not known yet.
    var person: String
    var address: String
    var role: Role
    var name: String
    var replaces: Bool
  }

  /// How an organization has to be found.
  private enum Presence: Sendable {
    case absent
    case present
    case either
  }

  private struct Made: Sendable {
    var organization: OrganizationID
    var token: Secret
  }

  /// The first token of an organization.
  private static func first(_ name: String, _ person: String, _ address: String) throws -> Order {
    var problems = FieldProblems()
    problems.check(name, at: "/name", maximum: 100, minimum: 1)
    problems.check(person, at: "/administratorName", maximum: 200, minimum: 1)
    AddressRules.check(address, at: "/administratorAddress", &problems)
    try problems.throwIfAny()
    return Order(person: person, address: address, role: .administrator, name: "bootstrap", replaces: true)
  }

  private func make(_ order: Order, in name: String, _ presence: Presence) async throws -> Made {
    let token = Token.generate()
    do {
      let organization = try await connection.run { db in
        let existing: OrganizationID? = try db.transaction(.worker) { db in
          try db.commit([Statement("SELECT id FROM organization WHERE name = $1", [.text(name)])])[0]
            .map { try $0.id() as OrganizationID }.first
        }
        if existing != nil && presence == .absent {
          throw StoreError.conflict(code: "name-taken", message: "there is already an organization “\(name)”")
        }
        if existing == nil && presence == .present { throw StoreError.notFound("organization: “\(name)”") }
        let id = try existing ?? db.createOrganization(name)
        try db.transaction(.api(id, owner: nil)) { db in
          _ = try db.commit([Self.person(id, order), Self.token(id, order, token)])
        }
        return id
      }
      await connection.close()
      logger.notice(
        "Made a token", metadata: ["organization.id": "\(organization)", "user.role": "\(order.role.rawValue)"])
      return Made(organization: organization, token: token)
    } catch {
      await connection.close()
      throw PostgresError.storeError(error)
    }
  }

  private static func person(_ id: OrganizationID, _ order: Order) -> Statement {
    Statement(
      """
      INSERT INTO app_user AS u (organization_id, name, address, address_key, role) VALUES ($1, $2, $3, lower($3), $4)
      ON CONFLICT (organization_id, address_key) DO UPDATE SET name = u.name
      """, [.id(id), .text(order.person), .text(order.address), .text(order.role.rawValue)])
  }

  private static func token(_ id: OrganizationID, _ order: Order, _ token: Secret) -> Statement {
    Statement(
      """
      WITH person AS (SELECT id FROM app_user WHERE organization_id = $1 AND address_key = lower($2)),
      revoked AS (
        UPDATE api_token SET revoked_at = now()
        WHERE $6 AND organization_id = $1 AND user_id = (SELECT id FROM person) AND name = $3 AND revoked_at IS NULL)
      INSERT INTO api_token (organization_id, user_id, name, role, token_hash)
      SELECT $1, id, $3, $4, $5 FROM person
      """,
      [
        .id(id), .text(order.address), .text(order.name), .text(order.role.rawValue), .bytes(Token.hash(token)),
        .bool(order.replaces),
      ])
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
