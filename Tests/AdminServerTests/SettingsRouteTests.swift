import PostriderCore
import Testing

@testable import AdminServer

@Suite("Settings, deletions, defaults and alerts over the API")
struct SettingsRouteTests {
  let api = TestAPI(channel: .unixSocket)

  struct Rows<Row: Decodable>: Decodable {
    let results: [Row]
  }

  struct Defaults: Decodable {
    let settings: EmailSettings
    let results: [MailboxEditResult]
    let tests: [BulkResult]?
  }

  struct Deleted: Decodable {
    let count: Int
    let dryRun: Bool
  }

  init() async throws {
    let store = api.store
    let principal = Principal(
      organizationID: OrganizationID(1), userID: UserID(1), name: "administrator", role: .administrator)
    let draft = ProfileDraft(
      name: "Mail", type: .pop3SMTP, incoming: ServerDraft(host: "pop.example.com"),
      outgoing: ServerDraft(host: "smtp.example.com"))
    let profile = try await store.createProfile(try ProfileRules().resolve(draft), by: principal)
    for name in ["a", "b"] {
      _ = try await store.createMailbox(
        MailboxDraft(address: "\(name)@example.com", profileID: profile.id), by: principal)
    }
    store.change { state in
      state.alerts = [AlertLevel.error, .warning].enumerated().map { index, level in
        Alert(
          id: AlertID(Int64(index + 1)), level: level, code: "x", text: "t", firstSeen: FakeAdminStore.date,
          lastSeen: FakeAdminStore.date)
      }
    }
  }

  @Test("settings: read, changed where a value is given, refused with the field, and by version")
  func settings() async throws {
    try await api.with { client in
      let before = try await client.get("/email-settings").decode(EmailSettings.self)
      #expect(before.alertLevels == AlertLevel.allCases && before.approvedUsersOnly)
      let changed = try await client.patch(
        "/email-settings",
        #"{"pollingIntervalMinutes":10,"alertLevels":["warning","error"],"actMethod":"server-side-sync","version":1}"#)
      #expect(changed.status == 200)
      let after = try changed.decode(EmailSettings.self)
      #expect(after.pollingIntervalMinutes == 10 && after.alertLevels == [.warning, .error])
      #expect(after.incomingMethod == before.incomingMethod && after.version == 2)
      #expect(changed.text.contains(#""act":{"#) && changed.text.contains(#""status":"not-run""#))
      #expect(
        try await client.patch("/email-settings", #"{"messagesPerPoll":1,"version":1}"#).problem().code == "stale")
      for (body, pointer) in [
        (#"{}"#, ""), (#"{"pollingIntervalMinutes":0}"#, "/pollingIntervalMinutes"),
        (#"{"pollingIntervalMinutes":1441}"#, "/pollingIntervalMinutes"),
        (#"{"maximumMessageOctets":1023}"#, "/maximumMessageOctets"),
        (#"{"maximumAttachmentOctets":0}"#, "/maximumAttachmentOctets"),
        (#"{"messagesPerPoll":100001}"#, "/messagesPerPoll"),
        (#"{"sessionDeadlineSeconds":9}"#, "/sessionDeadlineSeconds"), (#"{"alertLevels":["loud"]}"#, "/alertLevels/0"),
        (#"{"defaultProfileID":1,"clears":["defaultProfileID"]}"#, "/defaultProfileID"),
        (#"{"approvedUsersOnly":"yes"}"#, "/approvedUsersOnly"), (#"{"nonsense":1}"#, "/nonsense"),
      ] {
        let problem = try await client.patch("/email-settings", body).problem()
        #expect(problem.status == 422 && problem.errors?.map(\.pointer) == [pointer], "\(body)")
      }
      #expect(try await client.get("/email-settings").decode(EmailSettings.self) == after)
    }
  }

  @Test("profiles: verbs switch them; a deletion counts, asks, and leaves the mailboxes")
  func profiles() async throws {
    try await api.with { client in
      let stopped = try await client.post("/server-profiles/1/deactivate", "{}")
      #expect(stopped.status == 200)
      #expect(try stopped.decode(ServerProfile.self).isActive == false)
      #expect(try await client.post("/server-profiles/1/activate", "{}").decode(ServerProfile.self).isActive)
      let planned = try await client.post("/server-profiles/1/delete", #"{"dryRun":true}"#)
        .decode(ProfileDeletion.self)
      #expect(planned == ProfileDeletion(id: ProfileID(1), name: "Mail", mailboxes: 2, isDone: false))
      #expect(try await client.post("/server-profiles/1/delete", "{}").problem().code == "has-mailboxes")
      #expect(
        try await client.post("/server-profiles/1/delete", as: "foreign", #"{"confirmsUnlinking":true}"#).status == 404)
      #expect(
        try await client.post("/server-profiles/1/delete", #"{"confirmsUnlinking":true}"#)
          .decode(ProfileDeletion.self).isDone)
      #expect(try await client.get("/server-profiles/1").status == 404)
      #expect(try await client.get("/mailboxes/1").decode(Mailbox.self).profileID == nil)
    }
  }

  @Test("mailboxes: verbs, deletion and changes of several answer row by row; a row named twice is one")
  func mailboxes() async throws {
    try await api.with { client in
      let stopped = try await client.post("/mailboxes/deactivate", #"{"ids":[1,9,1]}"#).decode(Rows<BulkResult>.self)
      #expect(stopped.results.map(\.id.value) == [1, 9] && stopped.results.map(\.code) == [nil, "not-found"])
      #expect(try await client.get("/mailboxes/1").decode(Mailbox.self).isActive == false)
      _ = try await client.post("/mailboxes/activate", #"{"ids":[1]}"#)
      #expect(try await client.get("/mailboxes/1").decode(Mailbox.self).isActive)

      let rehearsed = try await client.patch(
        "/mailboxes", #"{"ids":[1,2],"change":{"outgoingMethod":"none"},"dryRun":true}"#)
      #expect(rehearsed.status == 200)
      #expect(
        try rehearsed.decode(Rows<MailboxEditResult>.self).results.map { $0.mailbox?.outgoing.method }
          == [SyncMethod.none, SyncMethod.none])
      #expect(try await client.get("/mailboxes/2").decode(Mailbox.self).outgoing.method == .serverSideSync)
      _ = try await client.patch("/mailboxes", #"{"ids":[1,2],"change":{"outgoingMethod":"none"}}"#)
      #expect(try await client.get("/mailboxes/2").decode(Mailbox.self).outgoing.method == .none)
      let wrong = try await client.patch(
        "/mailboxes", #"{"ids":[1],"change":{"address":"x@example.com","userName":"x","password":"y","version":1}}"#)
      #expect(
        try wrong.problem().errors?.map(\.pointer)
          == ["/change/address", "/change/userName", "/change/password", "/change/version"])
      #expect(try await client.patch("/mailboxes", #"{"ids":[1],"change":{}}"#).problem().status == 422)

      let deleted = try await client.post("/mailboxes/delete", #"{"ids":[2,2,9],"confirmsUnsentMail":true}"#)
      #expect(try deleted.decode(Rows<MailboxDeletion>.self).results.map(\.ok) == [true, false])
      #expect(try await client.get("/mailboxes/2").status == 404)
      #expect(api.store.state.withLock { $0.writes.last } == "delete [2, 9] true false")
    }
  }

  @Test("M4: the defaults are shown, written and tested, unless only shown or not to be tested")
  func defaults() async throws {
    api.store.change { $0.emailSettings.defaultProfileID = ProfileID(7) }
    try await api.with { client in
      let planned = try await client.post("/mailboxes/apply-defaults", #"{"ids":[1],"dryRun":true}"#)
        .decode(Defaults.self)
      #expect(planned.settings.defaultProfileID == ProfileID(7) && planned.tests == nil)
      #expect(try await client.get("/mailboxes/1").decode(Mailbox.self).profileID == ProfileID(1))
      let untested = try await client.post("/mailboxes/apply-defaults", #"{"ids":[1],"test":false}"#)
        .decode(Defaults.self)
      #expect(untested.tests == nil && untested.results.map(\.ok) == [true])
      #expect(try await client.get("/mailboxes/1").decode(Mailbox.self).profileID == ProfileID(7))
      let tested = try await client.post("/mailboxes/apply-defaults", #"{"ids":[1,2,9]}"#).decode(Defaults.self)
      #expect(tested.results.map(\.ok) == [true, true, false])
      #expect(tested.tests?.map(\.id.value) == [1, 2])
    }
  }

  @Test("alerts: shown, dismissed, deleted once it is confirmed; a wall needs to know whose it is")
  func alerts() async throws {
    try await api.with { client in
      #expect(try await client.get("/alerts/1").decode(Alert.self).level == .error)
      #expect(try await client.get("/alerts/9").status == 404)
      let dismissed = try await client.post("/alerts/dismiss", #"{"ids":[1,9]}"#).decode(Rows<AlertResult>.self)
      #expect(dismissed.results.map(\.ok) == [true, false])
      #expect(try await client.get("/alerts/1").decode(Alert.self).dismissedBy == "administrator")

      _ = try await client.get("/alerts?wall=mailbox&mailbox=3&level=error&code=auth.rejected")
      #expect(
        api.store.state.withLock { $0.lastAlertFilter }
          == AlertFilter(wall: .mailbox(MailboxID(3)), level: .error, code: "auth.rejected"))
      _ = try await client.get("/alerts?wall=profile&profile=4&mailbox=3")
      #expect(
        api.store.state.withLock { $0.lastAlertFilter }
          == AlertFilter(wall: .profile(ProfileID(4)), mailboxID: MailboxID(3)))
      _ = try await client.get("/alerts?wall=mine")
      #expect(api.store.state.withLock { $0.lastAlertFilter } == AlertFilter(wall: .mine))
      for query in ["wall=mailbox", "wall=profile&mailbox=1", "wall=yours"] {
        #expect(try await client.get("/alerts?\(query)").problem().status == 422, "\(query)")
      }
      #expect(
        try await client.post("/alerts/delete-all", #"{"wall":"profile","dryRun":true}"#).problem().errors?.map(
          \.pointer)
          == ["/profileID"])

      let counted = try await client.post("/alerts/delete-all", #"{"level":"warning","dryRun":true}"#)
      #expect(try counted.decode(Deleted.self).count == 1)
      let asked = try await client.post("/alerts/delete-all", #"{"level":"warning"}"#)
      #expect(try asked.problem().code == "needs-confirmation")
      let deleted = try await client.post("/alerts/delete-all", #"{"level":"warning","confirms":true}"#)
      #expect(try deleted.decode(Deleted.self).count == 1)
      #expect(try await client.get("/alerts/2").status == 404)
      #expect(try await client.get("/alerts/1").status == 200)
    }
  }
}
