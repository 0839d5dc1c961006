import FoundationEssentials
import PostriderCore

extension PostgresStore {
  /// Reads the settings of mailboxes into the cache; mailboxes that are gone or without a profile are left out.
  func loadSettings(of mailboxes: [MailboxID]) async throws -> [MailboxID: CachedSettings] {
    if mailboxes.isEmpty { return [:] }
    let rows = try await pool.transaction(.worker) { db in
      try db.commit([
        Statement(
          """
          SELECT m.id, m.version, p.id, p.version, o.id, o.version, m.address, m.allows_credentials, m.user_name,
            m.password, m.process_email_from, m.delete_after_processing, m.incoming_method, m.outgoing_method,
            p.process_email_from, p.type, p.maximum_concurrent_connections, p.minimum_polling_interval_minutes,
            p.connection_timeout_seconds, p.maximum_failed_logins, p.ca_certificates_pem, o.polling_interval_minutes,
            o.session_deadline_seconds, o.maximum_message_octets, o.maximum_attachment_octets, o.messages_per_poll,
            m.send_quota, p.send_quota, p.shared_send_quota, \(ServerColumns.list)
          FROM mailbox m JOIN server_profile p ON p.id = m.profile_id JOIN organization o ON o.id = m.organization_id
          WHERE m.id = ANY ($1)
          """, [.ids(mailboxes)])
      ])[0].map { try Self.settings(&$0) }
    }
    for (version, value) in rows { settings.insert(value, for: value.settings.mailboxID, version: version) }
    return Dictionary(uniqueKeysWithValues: rows.map { ($0.1.settings.mailboxID, $0.1) })
  }

  private static func settings(_ row: inout Row) throws -> (SettingsVersion, CachedSettings) {
    let mailbox: MailboxID = try row.id()
    let mailboxVersion = try row.int()
    let profile: ProfileID = try row.id()
    let profileVersion = try row.int()
    let organization: OrganizationID = try row.id()
    let organizationVersion = try row.int()
    let address = try row.text()
    let own = MailboxCredentials(
      allowed: try row.bool(), userName: try row.textOrNil() ?? address, password: try row.bytesOrNil(),
      mailbox: mailbox, profile: profile)
    let mailboxFloor = try row.dateOrNil()
    let deletes = try row.bool()
    let incomingMethod: SyncMethod = try row.word()
    let outgoingMethod: SyncMethod = try row.word()
    let profileFloor = try row.dateOrNil()
    let type: ProfileType = try row.word()
    let connections = Int(try row.int())
    let minimum = try row.int()
    let timeout = try row.int()
    let failedLogins = Int(try row.int())
    let certificates = try row.textOrNil()
    let interval = try row.int()
    let deadline = try row.int()
    let maximumMessage = try row.int()
    let maximumAttachment = try row.int()
    let messagesPerPoll = Int(try row.int())
    let mailboxQuota: SendQuota? = try row.jsonOrNil()
    let profileQuota: SendQuota? = try row.jsonOrNil()
    let sharedQuota: SendQuota? = try row.jsonOrNil()
    let (incoming, outgoing) = try ServerColumns.pair(&row)
    var settings = SessionSettings(
      organizationID: organization, mailboxID: mailbox, profileID: profile, address: address,
      incoming: incoming.settings, outgoing: outgoing.settings, incomingMethod: incomingMethod,
      outgoingMethod: outgoingMethod, caCertificatesPEM: certificates, connectionTimeout: .seconds(timeout),
      sessionDeadline: .seconds(deadline), pollingInterval: .seconds(60 * (minimum > 0 ? minimum : interval)),
      processEmailFrom: [mailboxFloor, profileFloor].compactMap { $0 }.max(), deleteAfterProcessing: deletes,
      maximumMessageOctets: maximumMessage, maximumAttachmentOctets: maximumAttachment,
      messagesPerPoll: messagesPerPoll)
    settings.profileVersion = profileVersion
    settings.loginBudget = LoginBudget(limit: failedLogins)
    settings.pace = SendPace(mailbox: mailboxQuota ?? profileQuota ?? type.sendQuota, profile: sharedQuota ?? .none)
    settings.provider = type
    settings.loginName = own.userName
    settings.sendLanes = min(connections, type.maximumSendConnections ?? JobID.maximumLanes, JobID.maximumLanes)
    return (
      SettingsVersion(
        mailbox: mailboxVersion, profile: profile, profileVersion: profileVersion, organization: organizationVersion),
      CachedSettings(
        settings: settings, incoming: own.credentials(for: incoming, column: "incoming_password"),
        outgoing: own.credentials(for: outgoing, column: "outgoing_password"))
    )
  }
}

/// The credentials given by a mailbox's owner, and the choice between them and the profile's.
private struct MailboxCredentials {
  var allowed: Bool
  var userName: String
  var password: [UInt8]?
  var mailbox: MailboxID
  var profile: ProfileID

  func credentials(for server: ServerColumns, column: String) -> SealedCredentials? {
    switch server.settings.credentials {
    case .mailbox:
      guard allowed, let password else { return nil }
      return SealedCredentials(
        userName: userName,
        proof: .password(password, SealedPlace(table: "mailbox", column: "password", row: mailbox.value)))
    case .profile: return profileCredentials(server, column: column)
    case .integrated: return SealedCredentials(userName: userName, proof: .workerIdentity)
    // A token is got when the session needs it.
    case .oauth: return nil
    case .anonymous: return nil
    }
  }

  /// The account of the profile, on its way into this mailbox's maildrop.
  private func profileCredentials(_ server: ServerColumns, column: String) -> SealedCredentials? {
    guard let account = server.settings.userName else { return nil }
    let proof: SealedCredentials.Proof
    if server.settings.mechanism == .gssapi {
      proof = .workerIdentity
    } else if let password = server.password {
      proof = .password(password, SealedPlace(table: "server_profile", column: column, row: profile.value))
    } else {
      return nil
    }
    switch server.settings.loginAs {
    case nil: return SealedCredentials(userName: account, proof: proof)
    case .authorizationIdentity?:
      return SealedCredentials(userName: account, proof: proof, authorizationIdentity: userName)
    case .template(let template)?:
      guard let login = template.userName(mailbox: userName, user: account) else {
        return SealedCredentials(userName: account, proof: .none(.credentialsAmbiguous))
      }
      return SealedCredentials(userName: login, proof: proof)
    }
  }
}

/// One direction's columns of `server_profile`.
struct ServerColumns {
  /// Both directions' columns of a profile called `p`, incoming first.
  static let list =
    ["incoming", "outgoing"].map { direction in
      ["host", "port", "tls", "credentials", "mechanism", "user_name", "password"].map { "p.\(direction)_\($0)" }
        .joined(separator: ", ")
    }.joined(separator: ", ") + ", p.incoming_login_as"

  /// Both directions of a profile, incoming first.
  static func pair(_ row: inout Row) throws -> (incoming: ServerColumns, outgoing: ServerColumns) {
    var incoming = try ServerColumns(&row)
    let outgoing = try ServerColumns(&row)
    incoming.settings.loginAs = try row.textOrNil().flatMap { LoginAs(rawValue: $0) }
    return (incoming, outgoing)
  }

  var settings: ServerSettings
  var password: [UInt8]?

  private init(_ row: inout Row) throws {
    settings = ServerSettings(
      host: try row.text(), port: Int(try row.int()), tls: try row.word(), credentials: try row.word(),
      mechanism: try row.word(), userName: try row.textOrNil())
    password = try row.bytesOrNil()
    settings.passwordSet = password != nil
  }
}
