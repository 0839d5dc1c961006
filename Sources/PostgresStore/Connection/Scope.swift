import PostriderCore

/// As whom a transaction works. Row-level security reads it, so a forgotten WHERE never shows another tenant's rows.
enum Scope: Hashable, Sendable {
  /// The scheduler and the workers, who serve every organization.
  case worker
  /// A person's request: one organization, nothing else.
  case api(OrganizationID)
  /// Looks up whose token this is; sees that one token and then its organization.
  case token(hash: [UInt8])

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
        set_config('postrider.token', $3, true), set_config('statement_timeout', $4, true), \
        set_config('random_page_cost', '1.1', true), set_config('jit', 'off', true)
        """, values)
    }
    switch self {
    case .worker: return settings([.text("postrider_worker"), .text(""), .text(""), .text(milliseconds)])
    case .api(let organization):
      return settings([.text("postrider_api"), .text(organization.description), .text(""), .text(milliseconds)])
    case .token(let hash):
      let hex = hash.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
      return settings([.text("postrider_api"), .text(""), .text(hex), .text(milliseconds)])
    }
  }
}

extension Duration {
  /// Milliseconds, rounded down.
  var wholeMilliseconds: Int64 {
    components.seconds * 1_000 + components.attoseconds / 1_000_000_000_000_000
  }
}
