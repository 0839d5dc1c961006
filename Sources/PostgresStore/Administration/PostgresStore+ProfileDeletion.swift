import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Deletes a profile and leaves its mailboxes without one; they stand still, untested, until they get another.
  ///
  /// Up to ``ProfileDeletion/immediateMailboxes`` are unlinked in this transaction. With more the profile is inactive at
  /// once and the leading scheduler takes them from it, step by step. Throws ``StoreError/conflict(code:message:)``
  /// `has-mailboxes` with their number when nobody confirmed it, `notFound`. Asking again is harmless.
  public func deleteProfile(
    _ id: ProfileID, confirmsUnlinking: Bool, dryRun: Bool, by principal: Principal
  ) async throws -> ProfileDeletion {
    let organization = principal.organizationID
    return try await pool.transaction(.api(principal)) { db in
      let first = try db.pipeline([
        Statement(
          "SELECT 1 FROM server_profile WHERE id = $1 AND organization_id = $2 FOR NO KEY UPDATE",
          [.id(id), .id(organization)]),
        Statement(
          Self.profileColumns + " WHERE p.id = $1 AND p.organization_id = $2", [.id(id), .id(organization)]),
      ])
      let profile = try Self.profile(first[1])
      var deletion = ProfileDeletion(id: id, name: profile.name, mailboxes: profile.mailboxCount, isDone: false)
      let isUnderWay = profile.deletingSince != nil
      if dryRun || isUnderWay {
        try db.commit()
        return deletion
      }
      if deletion.mailboxes > 0 && !confirmsUnlinking {
        throw StoreError.conflict(
          code: "has-mailboxes",
          message: "\(deletion.mailboxes) \(deletion.mailboxes == 1 ? "mailbox loses" : "mailboxes lose") this server "
            + "profile and \(deletion.mailboxes == 1 ? "stands" : "stand") still until given another one; send "
            + "`confirmsUnlinking` to delete it nevertheless")
      }
      deletion.isDone = deletion.mailboxes <= ProfileDeletion.immediateMailboxes
      if deletion.isDone {
        try Self.unlink(id, organization, db)
        try db.query("DELETE FROM server_profile WHERE id = $1", [.id(id)])
      } else {
        try db.query(
          """
          UPDATE server_profile SET is_active = false, is_default = false, deleting_since = now(),
            version = version + 1, updated_at = now()
          WHERE id = $1
          """, [.id(id)])
      }
      let entry = AuditEntry(
        "profile.delete", "server-profile", id.value, before: try PostgresValue.jsonText(profile),
        after: #"{"mailboxesWithoutProfile":\#(deletion.mailboxes)}"#)
      // The queue gives no lease for a profile that is inactive or gone.
      try db.commit([
        .audit([entry], by: principal), SchedulePayload.statement(profile: id), SchedulePayload.moves,
      ])
      return deletion
    }
  }

  /// Takes the next mailboxes of a profile from it; returns how many. The caller holds the lock on the profile.
  ///
  /// As in a move to another profile: the generation fences every session that began before, and the row in
  /// `mailbox_move` has the jobs withdrawn.
  @discardableResult
  static func unlink(
    _ profile: ProfileID, _ organization: OrganizationID, _ db: isolated PostgresConnection
  ) throws -> Int {
    let ids: [MailboxID] = try db.query(
      "SELECT id FROM mailbox WHERE profile_id = $1 ORDER BY id LIMIT $2 FOR NO KEY UPDATE",
      [.id(profile), .int(Int64(ProfileDeletion.immediateMailboxes))]
    ).map { try $0.id() }
    if ids.isEmpty { return 0 }
    let mailboxes = PostgresValue.ids(ids)
    let untested = Direction.allCases.map(\.rawValue).map { word in
      """
      \(word)_status = 'not-run', \(word)_enabled = false, \(word)_failure_code = NULL, \(word)_failed_at = NULL
      """
    }.joined(separator: ", ")
    try db.pipeline([
      Statement(
        """
        UPDATE mailbox SET profile_id = NULL, \(untested), version = version + 1, updated_at = now()
        WHERE id = ANY ($1)
        """, [mailboxes]),
      Statement(
        "SELECT 1 FROM mailbox_schedule WHERE mailbox_id = ANY ($1) ORDER BY mailbox_id, kind FOR NO KEY UPDATE",
        [mailboxes]),
      Statement(
        """
        UPDATE mailbox_schedule SET generation = generation + 1, last_fence = 0, lane_fences = NULL, failures = 0,
          failure_code = NULL
        WHERE mailbox_id = ANY ($1)
        """, [mailboxes]),
      Statement("DELETE FROM send_pace WHERE mailbox_id = ANY ($1)", [mailboxes]),
      Statement("DELETE FROM oauth_consent WHERE mailbox_id = ANY ($1)", [mailboxes]),
      // Granted to an application that nobody will know any more.
      Statement(
        "DELETE FROM oauth_grant WHERE mailbox_id = ANY ($1) AND profile_id = $2", [mailboxes, .id(profile)]),
      Statement(
        """
        INSERT INTO mailbox_move (mailbox_id, moved_from, organization_id)
        SELECT i.mailbox_id, $2, $3 FROM unnest($1) AS i (mailbox_id)
        ON CONFLICT (mailbox_id, moved_from) DO NOTHING
        """, [mailboxes, .id(profile), .id(organization)]),
      .refreshMayRun(mailboxes),
    ])
    return ids.count
  }
}
