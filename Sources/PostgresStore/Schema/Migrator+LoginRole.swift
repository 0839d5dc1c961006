import CLibPQ
import Logging
import PostriderCore

extension PostgresConnection {
  /// Creates the role that the application logs in as where it is missing, with the password of its URL. An existing
  /// role keeps its password and its rights.
  ///
  /// The server gets a SCRAM verifier (RFC 5803), never the password, so its statement log cannot hold it. Throws
  /// ``StoreError/schema(reason:)`` when there is no password or the migrating role may not create roles.
  func ensureLoginRole(_ user: String, password: Secret?, _ logger: Logger) throws {
    let found = try query("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", [.text(user)])
    if try found.map({ try $0.bool() }) == [true] { return }
    guard let password, !password.revealed.isEmpty else {
      throw StoreError.schema(
        reason: "the application's role \(user) does not exist, and the application's URL holds no password to create"
          + " it with; create the role, or put the password into the URL, and migrate again")
    }
    let verifier = try scramVerifier(of: password, user: user)
    do {
      // One pipeline is one transaction, to which the settings are local. CREATE ROLE takes no parameters.
      try pipeline([
        Statement(
          "SELECT set_config('postrider.login_role', $1, true), set_config('postrider.login_verifier', $2, true)",
          [.text(user), .text(verifier)]),
        Statement(
          """
          DO $$ BEGIN
            EXECUTE format(
              'CREATE ROLE %I LOGIN PASSWORD %L',
              current_setting('postrider.login_role'), current_setting('postrider.login_verifier'));
          END $$
          """),
      ])
      logger.notice("Created the application's login role", metadata: ["schema.role": "\(user)"])
    } catch let error as PostgresError where ["42710", "23505"].contains(error.sqlState) {
      // Another database's migration created it meanwhile.
      return
    } catch let error as PostgresError where error.sqlState == "42501" {
      throw StoreError.schema(
        reason: "the application's role \(user) does not exist, and the migrating role may not create it; have an"
          + " administrator of the server create it (CREATE ROLE … LOGIN PASSWORD …) and migrate again")
    }
  }

  /// What the server stores in place of a password: `SCRAM-SHA-256$iterations:salt$keys`.
  private func scramVerifier(of password: Secret, user: String) throws(StoreError) -> String {
    guard let verifier = PQencryptPasswordConn(try open(), password.revealed, user, "scram-sha-256") else {
      throw .schema(reason: "the password of the application's URL cannot be used for SCRAM-SHA-256; choose another")
    }
    defer { PQfreemem(verifier) }
    return String(cString: verifier)
  }
}
