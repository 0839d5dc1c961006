import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("WorkerStore: alerts by direction and on the profile's wall (E5)")
struct AlertTests {
  private static func failure(
    _ code: FailureCode, _ direction: Direction, scope: FailureScope? = nil, level: AlertLevel = .error
  ) -> AlertChange {
    .raise(AlertDraft(level: level, failure: Failure(code, scope: scope), direction: direction))
  }

  @Test("each direction has its own open row and resolves only that")
  func directions() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      try await database.commit([Self.failure(.authRejected, .incoming)], mailbox)
      try await database.commit([Self.failure(.authRejected, .outgoing)], mailbox)
      try await database.commit([Self.failure(.authRejected, .incoming)], mailbox)
      let rows = try await database.openAlerts()
      #expect(rows == ["m auth.rejected incoming 2", "m auth.rejected outgoing 1"])
      try await database.commit([.resolve(codes: nil, direction: .incoming)], mailbox)
      #expect(try await database.openAlerts() == ["m auth.rejected outgoing 1"])
      try await database.commit([.resolve(codes: ["auth.rejected"], direction: .incoming)], mailbox)
      #expect(try await database.openAlerts() == ["m auth.rejected outgoing 1"])
      try await database.commit([.resolve(codes: ["auth.rejected"], direction: nil)], mailbox)
      #expect(try await database.openAlerts().isEmpty)
    }
  }

  @Test("a recovered mailbox resolves the failures of its profile and direction, and of no other")
  func profile() async throws {
    try await TestDatabase.with { database in
      let profile = try await database.profile()
      let failing = try await database.runningMailbox("a@example.com")
      let recovering = try await database.runningMailbox("b@example.com")
      let other = try await database.profile("Other", isDefault: false)
      try await database.commit(
        [
          Self.failure(.tcpClosed, .incoming), Self.failure(.tlsExpired, .outgoing),
          Self.failure(.authRejected, .incoming, scope: .profile, level: .warning),
          .raise(
            AlertDraft(
              level: .warning, code: "notice", text: "n", parameters: ["direction": "incoming"],
              onProfile: true)),
          Self.failure(.pop3SysPerm, .incoming),
        ], failing)
      try await database.sql(
        """
        INSERT INTO alert (organization_id, profile_id, code, direction, level, text)
        SELECT organization_id, id, 'tcp.closed', 'incoming', 'error', 'x' FROM server_profile WHERE id = $1
        """, [.id(other.id)])
      let all = [
        "m pop3.sys-perm incoming 1", "p auth.rejected incoming 1", "p notice incoming 1", "p tcp.closed incoming 1",
        "p tcp.closed incoming 1", "p tls.expired outgoing 1",
      ]
      #expect(try await database.openAlerts() == all)
      // A failed test answers what the mailbox complained about and shows nothing of the profile.
      try await database.commit(
        [.resolve(codes: nil, direction: .incoming)], recovering,
        directions: [DirectionChange(.incoming, status: .failure, enabled: true, failureCode: .authRejected)])
      try await database.commit([.resolve(codes: ["tcp.refused"], direction: .incoming)], recovering)
      #expect(try await database.openAlerts() == all)
      try await database.commit([.resolve(codes: nil, direction: .incoming)], recovering)
      #expect(
        try await database.openAlerts() == [
          "m pop3.sys-perm incoming 1", "p notice incoming 1", "p tcp.closed incoming 1", "p tls.expired outgoing 1",
        ])
      #expect(
        try await database.int(
          "SELECT count(*) FROM alert WHERE profile_id = $1 AND resolved_at IS NOT NULL", [.id(profile.id)]) == 2)
      // What failed again is raised again.
      try await database.commit([Self.failure(.tcpClosed, .incoming)], failing)
      #expect(try await database.openAlerts().count { $0 == "p tcp.closed incoming 1" } == 2)
    }
  }

  @Test("a passed test of one direction recovers the profile even when the other direction failed")
  func test() async throws {
    try await TestDatabase.with { database in
      _ = try await database.profile()
      let mailbox = try await database.runningMailbox("a@example.com")
      try await database.commit([Self.failure(.tlsExpired, .incoming), Self.failure(.tlsExpired, .outgoing)], mailbox)
      try await database.commit(
        Direction.allCases.map { .resolve(codes: nil, direction: $0) }, mailbox,
        directions: [
          DirectionChange(.incoming, status: .success, enabled: true),
          DirectionChange(.outgoing, status: .failure, enabled: true, failureCode: .tlsExpired),
        ])
      #expect(try await database.openAlerts() == ["p tls.expired outgoing 1"])
    }
  }
}

extension TestDatabase {
  /// Commits one poll of the mailbox with these consequences.
  fileprivate func commit(
    _ alerts: [AlertChange], _ mailbox: Mailbox, directions: [DirectionChange] = []
  ) async throws {
    try await sql("UPDATE mailbox_schedule SET next_due_at = now() WHERE kind = 'p'")
    let (lease, assignment) = try await assignment(mailbox, .poll)
    let result = try await store.commit(outcome(lease, assignment, directions: directions, alerts: alerts))
    guard case .written = result else { throw TimedOut(what: "a written outcome") }
  }

  /// The open alerts: whose, code, direction and count, in order.
  fileprivate func openAlerts() async throws -> [String] {
    try await sql(
      """
      SELECT line FROM (
        SELECT concat_ws(' ', CASE WHEN mailbox_id IS NULL THEN 'p' ELSE 'm' END, code, direction, count)
        FROM alert WHERE resolved_at IS NULL
      ) AS a (line) ORDER BY line COLLATE "C"
      """
    ).map { try $0.text() }
  }
}
