import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Encrypts a password for its place; throws ``StoreError/missingKey(id:)`` in a process without a key ring.
  func seal(_ secret: Secret?, _ place: SealedPlace) throws -> [UInt8]? {
    guard let secret else { return nil }
    guard let ring = configuration.keyRing else { throw StoreError.missingKey(id: "of this process (no key ring)") }
    return try ring.seal(secret, for: place)
  }

  static let profileColumns = """
    SELECT p.id, p.organization_id, p.name, p.description, p.type, p.is_active, p.is_default,
      p.use_same_settings_for_outgoing, p.process_email_from, p.minimum_polling_interval_minutes,
      p.maximum_concurrent_connections, p.connection_timeout_seconds,
      p.maximum_failed_logins, p.ca_certificates_pem, p.version,
      (SELECT count(*) FROM mailbox m WHERE m.profile_id = p.id), p.created_at, p.updated_at, p.weight,
      p.paused_at, p.send_quota, p.shared_send_quota, p.failure_notice_to, p.deleting_since, p.owner_id,
      (SELECT u.name FROM app_user u WHERE u.id = p.owner_id), p.name_key, \(ServerColumns.list)
    FROM server_profile p
    """

  private static func profile(_ row: inout Row) throws -> (profile: ServerProfile, key: String) {
    var profile = ServerProfile(
      id: try row.id(), organizationID: try row.id(), name: try row.text(), description: try row.text(),
      type: try row.word(), isActive: try row.bool(), isDefault: try row.bool(),
      incoming: ServerSettings(host: "", port: 0, tls: .implicit, credentials: .mailbox),
      outgoing: ServerSettings(host: "", port: 0, tls: .implicit, credentials: .mailbox),
      useSameSettingsForOutgoing: try row.bool(), processEmailFrom: try row.dateOrNil(),
      minimumPollingIntervalMinutes: Int(try row.int()), maximumConcurrentConnections: Int(try row.int()),
      connectionTimeoutSeconds: Int(try row.int()), maximumFailedLogins: Int(try row.int()),
      caCertificatesPEM: try row.textOrNil(), version: try row.int(),
      mailboxCount: Int(try row.int()), createdAt: try row.date(), updatedAt: try row.date())
    profile.weight = Int(try row.int())
    profile.pausedAt = try row.dateOrNil()
    profile.sendQuota = try row.jsonOrNil()
    profile.sharedSendQuota = try row.jsonOrNil()
    profile.failureNoticeTo = try row.textOrNil()
    profile.deletingSince = try row.dateOrNil()
    profile.ownerID = try row.idOrNil()
    profile.ownerName = try row.textOrNil()
    let key = try row.text()
    let servers = try ServerColumns.pair(&row)
    profile.incoming = servers.incoming.settings
    profile.outgoing = servers.outgoing.settings
    return (profile, key)
  }

  static func profile(_ result: ResultSet) throws -> ServerProfile {
    guard let profile = try result.map(Self.profile).first?.profile else { throw StoreError.notFound("server profile") }
    return profile
  }

  /// Creates a profile from a checked draft (see ``ProfileRules``).
  ///
  /// Throws ``StoreError/conflict(code:message:)`` `name-taken`. The default switch moves from the profile that had it.
  public func createProfile(_ profile: ResolvedProfile, by principal: Principal) async throws -> ServerProfile {
    let organization = principal.organizationID
    let makesDefault = profile.draft.isDefault ?? false
    return try await pool.transaction(.api(principal)) { [self] db in
      var first = [Statement("SELECT nextval('server_profile_id_seq')")]
      if makesDefault {
        // One at a time moves the switch.
        first.append(Statement("SELECT 1 FROM organization WHERE id = $1 FOR NO KEY UPDATE", [.id(organization)]))
        first.append(
          Statement(
            """
            UPDATE server_profile SET is_default = false, version = version + 1, updated_at = now()
            WHERE organization_id = $1 AND is_default
            """, [.id(organization)]))
      }
      var row = try db.pipeline(first)[0][0]
      let id: ProfileID = try row.id()
      do {
        try db.query(Self.insertProfile, try profileValues(profile, id, principal))
      } catch let error as PostgresError where error.violates("server_profile_name") {
        throw StoreError.conflict(
          code: "name-taken", message: "there is already a server profile with the name “\(profile.draft.name)”")
      }
      let created = try Self.profile(
        try db.query(Self.profileColumns + " WHERE p.id = $1 AND p.organization_id = $2", [.id(id), .id(organization)]))
      let after = try PostgresValue.jsonText(created)
      try db.commit([
        .audit([AuditEntry("profile.create", "server-profile", id.value, after: after)], by: principal),
        SchedulePayload.statement(profile: id),
      ])
      return created
    }
  }

  private static let insertProfile = """
    INSERT INTO server_profile (id, organization_id, name, name_key, description, type, is_default,
      incoming_host, incoming_port, incoming_tls, incoming_credentials, incoming_mechanism, incoming_user_name,
      incoming_password, outgoing_host, outgoing_port, outgoing_tls, outgoing_credentials, outgoing_mechanism,
      outgoing_user_name, outgoing_password, use_same_settings_for_outgoing, process_email_from,
      minimum_polling_interval_minutes, maximum_concurrent_connections, connection_timeout_seconds,
      ca_certificates_pem, incoming_login_as, maximum_failed_logins, send_quota, shared_send_quota, owner_id)
    VALUES ($1, $2, $3, lower($3), $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
      $22, $23, $24, $25, $26, $27, $28, $29::jsonb, $30::jsonb, $31)
    """

  private func profileValues(
    _ profile: ResolvedProfile, _ id: ProfileID, _ principal: Principal
  ) throws -> [PostgresValue] {
    func server(_ server: ServerSettings, _ password: Secret?, _ column: String) throws -> [PostgresValue] {
      let sealed = try seal(password, SealedPlace(table: "server_profile", column: column, row: id.value))
      return [
        .text(server.host), .int(Int64(server.port)), .text(server.tls.rawValue), .text(server.credentials.rawValue),
        .text(server.mechanism.rawValue), .text(server.userName), .bytes(sealed),
      ]
    }
    let draft = profile.draft
    return [
      .id(id), .id(principal.organizationID), .text(draft.name), .text(draft.description ?? ""),
      .text(draft.type.rawValue),
      .bool(draft.isDefault ?? false),
    ]
      + (try server(profile.incoming, profile.incomingPassword, "incoming_password"))
      + (try server(profile.outgoing, profile.outgoingPassword, "outgoing_password")) + [
        .bool(draft.useSameSettingsForOutgoing ?? true), .time(draft.processEmailFrom),
        .int(Int64(draft.minimumPollingIntervalMinutes ?? 0)), .int(Int64(draft.maximumConcurrentConnections ?? 10)),
        .int(Int64(draft.connectionTimeoutSeconds ?? 30)), .text(draft.caCertificatesPEM),
        .text(profile.incoming.loginAs?.rawValue), .int(Int64(draft.maximumFailedLogins ?? 10)),
        .text(try draft.sendQuota.map { try PostgresValue.jsonText($0) }),
        .text(try draft.sharedSendQuota.map { try PostgresValue.jsonText($0) }), .id(principal.userID),
      ]
  }

  /// One profile. Throws ``StoreError/notFound(_:)``.
  public func profile(_ id: ProfileID, for principal: Principal) async throws -> ServerProfile {
    try await pool.transaction(.api(principal)) { db in
      try Self.profile(
        try db.commit([
          Statement(
            Self.profileColumns + " WHERE p.id = $1 AND p.organization_id = $2",
            [.id(id), .id(principal.organizationID)])
        ])[0])
    }
  }

  /// All profiles, by name.
  public func profiles(_ page: PageRequest, for principal: Principal) async throws -> Page<ServerProfile> {
    let limit = try page.checkedLimit()
    let cursor = try Cursor<String>(page.cursor, list: "profiles")
    return try await pool.transaction(.api(principal)) { db in
      let results = try db.commit([
        Statement(
          Self.profileColumns + """
             WHERE p.organization_id = $1 AND ($2::text IS NULL OR (p.name_key, p.id) > ($2, $3))
            ORDER BY p.name_key, p.id LIMIT $4
            """, [.id(principal.organizationID), .text(cursor?.key), .int(cursor?.id), .int(limit + 1)]),
        Statement("SELECT count(*) FROM server_profile WHERE organization_id = $1", [.id(principal.organizationID)]),
      ])
      let rows = try results[0].map(Self.profile)
      var total = results[1][0]
      let keys = Dictionary(uniqueKeysWithValues: rows.map { ($0.profile.id, $0.key) })
      return try Page(rows: rows.map(\.profile), limit: limit, total: try total.int()) { last in
        try Cursor(list: "profiles", key: keys[last.id] ?? "", id: last.id.value).text()
      }
    }
  }
}
