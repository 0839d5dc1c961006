import PostriderCore

/// As whom a transaction works. Row-level security reads it, so a forgotten WHERE never shows another tenant's rows.
enum Scope: Hashable, Sendable {
  /// The scheduler and the workers, who serve every organization.
  case worker
  /// A request in one organization: nothing of others, and with an owner only what a person of that role sees.
  case api(OrganizationID, owner: UserID?)
  /// Looks up whose token this is; sees that one token and then its organization.
  case token(hash: [UInt8])

  /// A person's request. There is no other way from a principal to a scope, so their role is never forgotten.
  static func api(_ principal: Principal) -> Scope {
    .api(principal.organizationID, owner: principal.role.seesOnlyOwn ? principal.userID : nil)
  }

  static let statementPrefix = "SELECT set_config('role'"

  /// The first statement of every transaction. The settings are local to it, which is safe behind a transaction pooler.
  ///
  /// A batch of 500 hot rows is looked up by key: with the default cost of a random page the planner reads a table of
  /// 50,000 mailboxes whole instead.
  func statement(timeout: Duration) -> Statement {
    let milliseconds = String(timeout.wholeMilliseconds)
    func settings(_ values: [PostgresValue]) -> Statement {
      .kept(
        """
        SELECT set_config('role', $1, true), set_config('postrider.organization', $2, true), \
        set_config('postrider.token', $3, true), set_config('postrider.owner', $4, true), \
        set_config('statement_timeout', $5, true), \
        set_config('random_page_cost', '1.1', true), set_config('jit', 'off', true)
        """, values)
    }
    let timeout = PostgresValue.text(milliseconds)
    switch self {
    case .worker: return settings([.text("postrider_worker"), .text(""), .text(""), .text(""), timeout])
    case .api(let organization, let owner):
      return settings([
        .text("postrider_api"), .text(organization.description), .text(""), .text(owner?.description ?? ""), timeout,
      ])
    case .token(let hash):
      let hex = hash.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
      return settings([.text("postrider_api"), .text(""), .text(hex), .text(""), timeout])
    }
  }
}

extension Duration {
  /// Milliseconds, rounded down.
  var wholeMilliseconds: Int64 {
    components.seconds * 1_000 + components.attoseconds / 1_000_000_000_000_000
  }
}
