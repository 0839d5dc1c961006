import FoundationEssentials
import PostriderCore

/// How a mailbox is read for people: the wide row, its owner, its profile and its three hot rows.
enum MailboxQuery {
  /// Whether the organization asks for an approval of a mailbox `m` of organization `o`.
  static let approvalNeeded = "CASE WHEN m.queue_id IS NULL THEN o.approved_users_only ELSE o.approved_queues_only END"

  static let columns = """
    SELECT m.id, m.organization_id, m.address, m.queue_id IS NOT NULL, coalesce(m.user_id, m.queue_id),
      coalesce(u.name, q.name), m.profile_id, p.name, m.is_active, m.approval, m.allows_credentials, m.user_name,
      m.password IS NOT NULL, m.process_email_from, m.delete_after_processing, m.version, m.created_at, m.updated_at,
      c.email_count, sp.requested, sp.served, sp.last_run_id, st.requested, st.served, st.last_run_id, m.address_key,
      \(direction("incoming", "sp")), \(direction("outgoing", "ss")), m.paused_at,
      60 * coalesce(nullif(p.minimum_polling_interval_minutes, 0), o.polling_interval_minutes), sp.slot_gap_seconds,
      \(gapReason), m.send_quota, m.act_method, p.type
    """

  /// Why the last two polls lay further apart than the interval: the failure that was waited out, a pause of profile or
  /// organization in between, else what the leading scheduler says of the whole profile, else too few workers.
  private static let gapReason = """
    CASE
      WHEN sp.gap_code IS NOT NULL THEN sp.gap_code
      WHEN greatest(p.resumed_at, o.resumed_at) > sp.slot_at - sp.slot_gap_seconds * interval '1 second' THEN 'paused'
      ELSE coalesce((SELECT a.parameters->>'cause' FROM alert a WHERE a.profile_id = p.id
        AND a.code = 'schedule.stretched' AND coalesce(a.direction, '') = 'incoming' AND a.resolved_at IS NULL),
        'overload')
    END
    """

  private static let tables = " FROM mailbox m\n" + joins

  /// What is read beside a row of `m`.
  static let joins = """
    JOIN organization o ON o.id = m.organization_id
    LEFT JOIN app_user u ON u.id = m.user_id
    LEFT JOIN shared_queue q ON q.id = m.queue_id
    LEFT JOIN server_profile p ON p.id = m.profile_id
    LEFT JOIN mailbox_counter c ON c.mailbox_id = m.id
    JOIN mailbox_schedule sp ON sp.mailbox_id = m.id AND sp.kind = 'p'
    JOIN mailbox_schedule ss ON ss.mailbox_id = m.id AND ss.kind = 's'
    JOIN mailbox_schedule st ON st.mailbox_id = m.id AND st.kind = 't'
    """

  /// Why one direction of `m` does not run.
  static func reason(_ direction: String) -> String {
    """
    not_running_reason(m.\(direction)_method, m.is_active, \(ownerActive), p.is_active, m.approval, \(approvalNeeded), \
    m.\(direction)_status, m.\(direction)_enabled, \(paused), \(setAside(direction == "incoming" ? "p" : "s")))
    """
  }

  /// Whether the person or shared queue that `m` belongs to is active.
  static let ownerActive = """
    coalesce((SELECT w.is_active FROM app_user w WHERE w.id = m.user_id), \
    (SELECT w.is_active FROM shared_queue w WHERE w.id = m.queue_id))
    """

  /// The shared queues that a person owns or is a member of.
  private static func queues(of person: String) -> String {
    """
    ARRAY(SELECT w.id FROM shared_queue w WHERE w.owner_id = \(person)
      UNION SELECT w.queue_id FROM shared_queue_member w WHERE w.user_id = \(person))
    """
  }

  /// Those `m` that are a person's own, or of shared queues that they own or are a member of.
  static func isMine(_ person: String) -> String {
    "(m.user_id = \(person) OR m.queue_id = ANY (\(queues(of: person))))"
  }

  /// The mailboxes `m` of the organization $1 that meet a condition, as a statement; those of one person are read from
  /// their own index and from each of their shared queues'.
  static func rows(of person: String?, _ condition: String, _ order: String = "") -> String {
    let all = "SELECT m.* FROM mailbox m WHERE m.organization_id = $1"
    guard let person else { return "\(all)\(condition)\(order)" }
    return """
      SELECT m.* FROM (
        (\(all) AND m.user_id = \(person)\(condition)\(order))
        UNION ALL
        SELECT m.* FROM unnest(\(queues(of: person))) AS w (id) CROSS JOIN LATERAL (
          \(all) AND m.queue_id = w.id\(condition)\(order)) m
      ) m\(order)
      """
  }

  /// Whether `m`, its profile `p` or its organization `o` is paused.
  static let paused = "coalesce(m.paused_at, p.paused_at, o.paused_at) IS NOT NULL"

  /// Whether a job of `m` is set aside.
  static func setAside(_ kind: String) -> String {
    "EXISTS (SELECT FROM set_aside_job a WHERE a.mailbox_id = m.id AND a.kind = '\(kind)')"
  }

  private static func direction(_ name: String, _ row: String) -> String {
    """
    m.\(name)_method, m.\(name)_status, m.\(name)_enabled, m.\(name)_failure_code, m.\(name)_failed_at, \
    \(row).last_run_at, CASE WHEN \(row).enabled AND \(reason(name)) IS NULL THEN \(row).next_due_at END, \
    \(row).reason, \(reason(name))
    """
  }

  static func one(_ id: MailboxID, of organization: OrganizationID) -> Statement {
    Statement(columns + tables + " WHERE m.id = $1 AND m.organization_id = $2", [.id(id), .id(organization)])
  }

  static func read(_ row: inout Row) throws -> (mailbox: Mailbox, key: String) {
    let id: MailboxID = try row.id()
    let organization: OrganizationID = try row.id()
    let address = try row.text()
    let ownerKind: OwnerKind = try row.bool() ? .queue : .user
    let none = DirectionState(method: .none)
    var mailbox = Mailbox(
      id: id, organizationID: organization, address: address,
      owner: MailboxOwner(kind: ownerKind, id: try row.int(), name: try row.textOrNil() ?? ""),
      profileID: try row.idOrNil(), profileName: try row.textOrNil(), isActive: try row.bool(),
      approval: try row.word(), allowsCredentials: try row.bool(), userName: try row.textOrNil(),
      passwordSet: try row.bool(), processEmailFrom: try row.dateOrNil(), deleteAfterProcessing: try row.bool(),
      incoming: none, outgoing: none, version: try row.int(), createdAt: try row.date(), updatedAt: try row.date())
    mailbox.emailCount = Int(try row.intOrNil() ?? 0)
    mailbox.pollsRequested = try row.int()
    mailbox.pollsServed = try row.int()
    mailbox.lastPollRunID = try row.idOrNil()
    mailbox.testsRequested = try row.int()
    mailbox.testsServed = try row.int()
    mailbox.lastTestRunID = try row.idOrNil()
    let key = try row.text()
    mailbox.incoming = try state(&row)
    mailbox.outgoing = try state(&row)
    mailbox.pausedAt = try row.dateOrNil()
    let interval = try row.intOrNil().map(Int.init)
    let effective = try row.intOrNil().map(Int.init)
    let gapReason = try row.text()
    mailbox.sendQuota = try row.jsonOrNil()
    mailbox.act = ACTState(method: try row.word(), on: try row.textOrNil().flatMap { ProfileType(rawValue: $0) })
    mailbox.incoming.intervalSeconds = interval
    mailbox.incoming.effectiveIntervalSeconds = effective
    if let interval, let effective, effective > interval { mailbox.incoming.effectiveIntervalReason = gapReason }
    return (mailbox, key)
  }

  private static func state(_ row: inout Row) throws -> DirectionState {
    var state = DirectionState(
      method: try row.word(), status: try row.word(), enabled: try row.bool(), failureCode: try row.textOrNil(),
      failedAt: try row.dateOrNil(), lastRunAt: try row.dateOrNil(), nextRunAt: try row.dateOrNil())
    let reason = try row.text()
    state.nextRunReason = state.nextRunAt == nil || reason.isEmpty ? nil : reason
    state.notRunningReason = try row.textOrNil()
    return state
  }
}

extension MailboxFilter {
  /// Whether it asks for one person's mailboxes alone. Row-level security shows an owner no others; saying so lets the
  /// list begin with an index.
  func isOwn(of principal: Principal) -> Bool { view == .mine || principal.role.seesOnlyOwn }

  /// The condition on `m` that stands for the filter, with parameters from `$first` on.
  func condition(
    first: Int, for principal: Principal
  ) -> (sql: String, parameters: [PostgresValue]) {
    let other = otherCondition(first: isOwn(of: principal) ? first + 1 : first)
    guard isOwn(of: principal) else { return other }
    return (" AND \(MailboxQuery.isMine("$\(first)"))\(other.sql)", [.id(principal.userID)] + other.parameters)
  }

  /// The condition without whose mailboxes they are.
  ///
  /// - Parameter asPage: keeps the profile's number from the planner, for the first rows in some order. It would expect as
  ///   many inactive mailboxes of a big profile as of any other part of the organization and look for them among all; not
  ///   knowing which profile it is, it begins with the profile.
  func otherCondition(first: Int, asPage: Bool = false) -> (sql: String, parameters: [PostgresValue]) {
    var sql = ""
    var parameters: [PostgresValue] = []
    switch view {
    case .active: sql += " AND m.is_active"
    case .inactive: sql += " AND NOT m.is_active"
    case .notTested:
      sql += """
         AND ((m.incoming_method = 'server-side-sync' AND m.incoming_status = 'not-run')
        OR (m.outgoing_method = 'server-side-sync' AND m.outgoing_status = 'not-run'))
        """
    case .failing: sql += " AND (m.incoming_status = 'failure' OR m.outgoing_status = 'failure')"
    case .pendingApproval: sql += " AND m.approval = 'pending'"
    case .mine, nil: break
    }
    if let address {
      sql += " AND m.address_key = lower($\(first + parameters.count))"
      parameters.append(.text(address))
    }
    if let profileID {
      let number = "$\(first + parameters.count)"
      sql += " AND m.profile_id = \(asPage ? "(SELECT \(number))" : number)"
      parameters.append(.id(profileID))
    }
    return (sql, parameters)
  }
}
