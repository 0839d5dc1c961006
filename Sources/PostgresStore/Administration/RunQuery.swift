import PostriderCore

/// How runs are listed. Nearly all runs are polls that succeed, so a filter that lets them through is read in the order of
/// time and finds its rows at once. Any other is read kind by kind and result by result from the index without them.
struct RunQuery: Sendable {
  private let filter: RunFilter
  private let organization: OrganizationID
  private let seesOnlyOwn: Bool

  init(_ filter: RunFilter, _ principal: Principal) {
    self.filter = filter
    organization = principal.organizationID
    seesOnlyOwn = principal.role.seesOnlyOwn
  }

  /// Row-level security shows an owner no others; saying so lets their few runs be found among all.
  private var own: String { seesOnlyOwn ? " AND r.mailbox_id = ANY ((SELECT own_mailbox_ids())::bigint[])" : "" }

  private var kinds: [String] { (filter.kind.map { [$0] } ?? JobKind.allCases).map(\.rawValue) }
  private var results: [String] { (filter.result.map { [$0] } ?? RunResult.allCases).map(\.rawValue) }

  /// Whether the order of time alone leads to the rows: of one mailbox there are not many.
  private var isDense: Bool {
    filter.mailboxID != nil || seesOnlyOwn
      || ((filter.kind ?? .poll) == .poll && (filter.result ?? .success) == .success)
  }

  /// The condition of the index without successful polls.
  private static let unusual = "NOT (r.kind = 'p' AND r.result = 'success')"

  private var parameters: [PostgresValue] {
    isDense
      ? [.id(organization), .id(filter.mailboxID), .text(filter.kind?.rawValue), .text(filter.result?.rawValue)]
      : [.id(organization), .texts(kinds), .texts(results)]
  }

  private var denseCondition: String {
    """
    r.organization_id = $1 AND ($2::bigint IS NULL OR r.mailbox_id = $2) AND ($3::text IS NULL OR r.kind = $3)
      AND ($4::text IS NULL OR r.result = $4)\(own)
    """
  }

  /// Rows for the total.
  var count: ListCount {
    if isDense { return ListCount("FROM run r WHERE \(denseCondition)", parameters) }
    let rows = "FROM run r WHERE r.organization_id = $1 AND r.kind = ANY ($2) AND r.result = ANY ($3)"
    // The index's condition follows from the others, and would be taken for one more that leaves out rows.
    return ListCount("\(rows) AND \(Self.unusual)", parameters, estimated: rows)
  }

  /// A page.
  func page(after cursor: Cursor<Int64>?, limit: Int64) -> Statement {
    let order = filter.order
    let first = parameters.count + 1
    let after =
      cursor == nil
      ? ""
      // The second condition is the first one's, for the planner: it leaves out partitions by it.
      : " AND (r.started_at, r.id) \(order.sign) ($\(first), $\(first + 1)) AND r.started_at \(order.sign)= $\(first)"
    let sorted = " ORDER BY r.started_at \(order.direction), r.id \(order.direction)"
    let end = "\(after)\(sorted) LIMIT \(limit)"
    let rows =
      isDense
      ? "SELECT r.* FROM run r WHERE \(denseCondition)\(end)"
      : """
      SELECT r.* FROM unnest($2::text[]) AS k (kind) CROSS JOIN unnest($3::text[]) AS s (result) CROSS JOIN LATERAL (
        SELECT r.* FROM run r WHERE r.organization_id = $1 AND r.kind = k.kind AND r.result = s.result
          AND \(Self.unusual)\(end)) r
      \(sorted) LIMIT \(limit)
      """
    return Statement(
      PostgresStore.runColumns("(\(rows))") + sorted,
      parameters + (cursor.map { [.microseconds($0.key), .int($0.id)] } ?? []))
  }
}

/// How alerts are listed: each level from the index that has it in order.
struct AlertQuery: Sendable {
  private let condition: AlertCondition
  private let order: RowOrder
  private let parameters: [PostgresValue]

  init(_ filter: AlertFilter, _ principal: Principal) {
    condition = AlertCondition(filter, principal)
    order = filter.order
    parameters =
      condition.parameters + [.texts((filter.level.map { [$0] } ?? AlertLevel.allCases).map(\.rawValue))]
  }

  /// The parameter with the levels.
  private var levels: String { "$\(parameters.count)" }

  /// Rows for the total.
  var count: ListCount { ListCount("FROM alert a\(condition.sql) AND a.level = ANY (\(levels))", parameters) }

  /// A page.
  func page(after cursor: Cursor<Int64>?, limit: Int64) -> Statement {
    let first = parameters.count + 1
    let after = cursor == nil ? "" : " AND (a.last_seen, a.id) \(order.sign) ($\(first), $\(first + 1))"
    let sorted = " ORDER BY a.last_seen \(order.direction), a.id \(order.direction)"
    let rows = """
      SELECT a.* FROM unnest(\(levels)::text[]) AS l (level) CROSS JOIN LATERAL (
        SELECT a.* FROM alert a\(condition.sql) AND a.level = l.level\(after)\(sorted) LIMIT \(limit)) a
      \(sorted) LIMIT \(limit)
      """
    return Statement(
      PostgresStore.alertColumns("(\(rows))") + sorted,
      parameters + (cursor.map { [.microseconds($0.key), .int($0.id)] } ?? []))
  }
}
