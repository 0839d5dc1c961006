import FoundationEssentials
import PostriderCore
import Testing

@testable import PostgresStore

@Suite("Users and shared queues", .timeLimit(.minutes(3)))
struct PeopleTests {
  /// The code of a refusal.
  private func code(_ error: StoreError?) -> String? {
    if case .conflict(let code, _) = error { code } else { nil }
  }

  @Test("users are entered, found, changed and deleted, with an audit row for each; none leaks to another organization")
  func users() async throws {
    try await TestDatabase.with { database in
      let (store, ada) = (database.store, database.principal)
      #expect(try await store.user(ada.userID, for: ada).role == .administrator)
      let ann = try await store.createUser(UserDraft(address: "Ann@example.com", name: "Ann"), by: ada)
      #expect(ann.role == .owner && ann.isActive && !ann.passwordSet && ann.version == 1)
      let bob = try await store.createUser(UserDraft(address: "bob@example.com", role: .reader), by: ada)
      let taken = await #expect(throws: StoreError.self) {
        try await store.createUser(UserDraft(address: "ANN@example.com"), by: ada)
      }
      #expect(code(taken) == "address-taken")

      func found(_ filter: PeopleFilter) async throws -> [UserID] {
        try await store.users(filter, PageRequest(), for: ada).items.map(\.id)
      }
      #expect(try await found(PeopleFilter()) == [ada.userID, ann.id, bob.id])
      #expect(try await found(PeopleFilter(address: "ann@EXAMPLE.com")) == [ann.id])
      #expect(try await found(PeopleFilter(text: "NN@ex")) == [ann.id])
      #expect(try await found(PeopleFilter(text: "ad")) == [ada.userID])
      let first = try await store.users(PeopleFilter(), PageRequest(limit: 2), for: ada)
      #expect(first.total == 3 && first.items.map(\.id) == [ada.userID, ann.id])
      let rest = try await store.users(PeopleFilter(), PageRequest(limit: 2, cursor: first.nextCursor), for: ada)
      #expect(rest.items.map(\.id) == [bob.id] && rest.nextCursor == nil)

      let changed = try await store.updateUser(
        ann.id, UserChange(name: "Anna", address: "anna@example.com", isActive: false, version: 1), by: ada)
      #expect(changed.name == "Anna" && !changed.isActive && changed.version == 2)
      #expect(try await found(PeopleFilter(isActive: false)) == [ann.id])
      await #expect(throws: StoreError.stale) {
        try await store.updateUser(ann.id, UserChange(name: "A", version: 1), by: ada)
      }
      #expect(try await store.updateUser(ann.id, UserChange(name: "Anna"), by: ada) == changed)
      try await store.deleteUser(bob.id, by: ada)
      await #expect(throws: StoreError.notFound("user")) { try await store.user(bob.id, for: ada) }

      let other = try await database.otherPrincipal()
      for call in [
        { _ = try await store.user(ann.id, for: other) }, { try await store.deleteUser(ann.id, by: other) },
        { _ = try await store.updateUser(ann.id, UserChange(name: "X"), by: other) },
      ] as [@Sendable () async throws -> Void] {
        await #expect(throws: StoreError.notFound("user")) { try await call() }
      }
      let rows = try await store.auditRecords(AuditFilter(action: "user"), PageRequest(), for: ada).items
      #expect(rows.map(\.action) == ["user.delete", "user.update", "user.create", "user.create"])
      #expect(
        rows[1].before
          == .object([
            "name": .string("Ann"), "address": .string("Ann@example.com"), "role": .string("owner"),
            "isActive": .boolean(true),
          ]))
    }
  }

  @Test("an organization keeps an administrator, and nobody takes their own rights")
  func administrators() async throws {
    try await TestDatabase.with { database in
      let (store, ada) = (database.store, database.principal)
      for change in [UserChange(role: .reader), UserChange(isActive: false)] {
        let refused = await #expect(throws: StoreError.self) { try await store.updateUser(ada.userID, change, by: ada) }
        #expect(code(refused) == "yourself")
      }
      let gone = await #expect(throws: StoreError.self) { try await store.deleteUser(ada.userID, by: ada) }
      #expect(code(gone) == "yourself")
      let eve = try await store.createUser(UserDraft(address: "eve@example.com", role: .administrator), by: ada)
      let asEve = Principal(organizationID: ada.organizationID, userID: eve.id, name: "Eve", role: .administrator)
      _ = try await store.updateUser(ada.userID, UserChange(role: .reader), by: asEve)
      // Ada's token of the stronger role is gone with it.
      #expect(try await store.principal(token: database.token) == nil)
      // Of somebody who is not an administrator any more, but is remembered as one.
      let last = await #expect(throws: StoreError.self) {
        try await store.updateUser(eve.id, UserChange(isActive: false), by: ada)
      }
      #expect(code(last) == "last-administrator")
    }
  }

  @Test("M0: a shared queue has one owner and members, who are people of the organization")
  func queues() async throws {
    try await TestDatabase.with { database in
      let (store, ada) = (database.store, database.principal)
      let ann = try await store.createUser(UserDraft(address: "ann@example.com"), by: ada)
      let bob = try await store.createUser(UserDraft(address: "bob@example.com"), by: ada)
      let queue = try await store.createSharedQueue(
        SharedQueueDraft(address: "support@example.com", ownerID: ann.id, memberIDs: [bob.id, ada.userID]), by: ada)
      #expect(queue.owner?.id == ann.id && queue.members.map(\.id) == [ada.userID, bob.id])
      #expect(queue.owner == UserReference(id: ann.id, name: "ann@example.com", address: "ann@example.com"))
      let mine = try await store.createSharedQueue(SharedQueueDraft(address: "sales@example.com"), by: ada)
      #expect(mine.owner?.id == ada.userID && mine.members.isEmpty)
      let stranger = try await database.otherPrincipal()
      let wrong = await #expect(throws: StoreError.self) {
        try await store.createSharedQueue(
          SharedQueueDraft(address: "x@example.com", memberIDs: [ann.id, stranger.userID]), by: ada)
      }
      guard case .invalid(let problems) = wrong else {
        Issue.record("\(String(describing: wrong))")
        return
      }
      #expect(problems.map(\.pointer) == ["/memberIDs/1"])
      let list = try await store.sharedQueues(PeopleFilter(text: "supp"), PageRequest(), for: ada)
      #expect(list.items == [queue] && list.total == 1)
      await #expect(throws: StoreError.notFound("shared queue")) {
        try await store.sharedQueue(queue.id, for: stranger)
      }

      let changed = try await store.updateSharedQueue(
        queue.id, SharedQueueChange(name: "Support", ownerID: bob.id, memberIDs: [ann.id], version: 1), by: ada)
      #expect(changed.owner?.id == bob.id && changed.members.map(\.id) == [ann.id] && changed.version == 2)
      #expect(try await store.updateSharedQueue(queue.id, SharedQueueChange(memberIDs: [ann.id]), by: ada) == changed)
      await #expect(throws: StoreError.stale) {
        try await store.updateSharedQueue(queue.id, SharedQueueChange(name: "S", version: 1), by: ada)
      }
      // A membership goes with the person, an ownership keeps them.
      try await store.deleteUser(ann.id, by: ada)
      #expect(try await store.sharedQueue(queue.id, for: ada).members.isEmpty)
      let kept = await #expect(throws: StoreError.self) { try await store.deleteUser(bob.id, by: ada) }
      #expect(code(kept) == "in-use" && kept?.description.contains("shared queue support@example.com") == true)
      try await store.deleteSharedQueue(queue.id, by: ada)
      try await store.deleteUser(bob.id, by: ada)
    }
  }

  @Test("deleting names what still hangs on it, and takes no mailbox along")
  func belongings() async throws {
    try await TestDatabase.with { database in
      let (store, ada) = (database.store, database.principal)
      let profile = try await database.profile()
      #expect(profile.ownerID == ada.userID && profile.ownerName == "Ada")
      let mailbox = try await database.mailbox("ann@example.com")
      let ann = UserID(mailbox.owner.id)
      let queueMailbox = try await store.createMailbox(
        MailboxDraft(address: "support@example.com", owner: OwnerDraft(kind: .queue)), by: ada)
      let queue = SharedQueueID(queueMailbox.owner.id)
      #expect(try await store.sharedQueue(queue, for: ada).owner?.id == ada.userID)
      _ = try await store.updateSharedQueue(queue, SharedQueueChange(ownerID: ann), by: ada)
      var change = ProfileChange()
      change.ownerID = ann
      let given = try await store.updateProfile(profile.id, change, by: ada)
      #expect(given.ownerID == ann && given.ownerName == "ann@example.com" && given.version == profile.version + 1)
      change.ownerID = UserID(999_999)
      let unknown = await #expect(throws: StoreError.self) {
        try await store.updateProfile(profile.id, change, by: ada)
      }
      #expect(unknown?.description.contains("/ownerID") == true)

      let refused = await #expect(throws: StoreError.self) { try await store.deleteUser(ann, by: ada) }
      #expect(code(refused) == "in-use")
      for words in ["mailbox ann@example.com", "shared queue support@example.com", "server profile Mail"] {
        #expect(refused?.description.contains(words) == true, "\(String(describing: refused))")
      }
      let queueRefused = await #expect(throws: StoreError.self) { try await store.deleteSharedQueue(queue, by: ada) }
      #expect(
        code(queueRefused) == "in-use" && queueRefused?.description.contains("mailbox support@example.com") == true)
      #expect(try await database.int("SELECT count(*) FROM mailbox") == 2)
    }
  }

  @Test("mailboxes of an inactive user or shared queue stop and say so, and run again; the scheduler is told")
  func inactive() async throws {
    try await TestDatabase.with { database in
      let (store, ada) = (database.store, database.principal)
      let profile = try await database.profile()
      let mailbox = try await database.runningMailbox("ann@example.com")
      let queueMailbox = try await store.createMailbox(
        MailboxDraft(address: "support@example.com", owner: OwnerDraft(kind: .queue)), by: ada)
      _ = try await store.setApproval(.approved, of: [queueMailbox.id], by: ada)
      try await database.pass(queueMailbox)

      func switched(_ isActive: Bool) async throws {
        _ = try await store.updateUser(UserID(mailbox.owner.id), UserChange(isActive: isActive), by: ada)
        _ = try await store.updateSharedQueue(
          SharedQueueID(queueMailbox.owner.id), SharedQueueChange(isActive: isActive), by: ada)
      }
      let listener = PostgresConnection(
        url: ConnectionURL(database.server.url("pr_app", database.name)), options: .test)
      try await listener.run { db in _ = try db.query("LISTEN postrider_schedule") }
      /// What the scheduler is told until it knows of so many mailboxes' polls.
      func told(_ ids: [MailboxID]) async throws -> Bool {
        var waited = Set(ids.map { "\($0)p" })
        while !waited.isEmpty {
          let payloads = try await listener.notifications(timeout: .seconds(20))
          if payloads.isEmpty { return false }
          for payload in payloads { waited.subtract(payload.split(separator: " ").map(String.init)) }
        }
        return true
      }
      try await switched(false)
      #expect(try await told([mailbox.id, queueMailbox.id]))
      for id in [mailbox.id, queueMailbox.id] {
        let stopped = try await store.mailbox(id, for: ada)
        #expect(stopped.incoming.notRunningReason == "owner-inactive" && stopped.incoming.nextRunAt == nil)
        #expect(stopped.outgoing.notRunningReason == "owner-inactive" && stopped.isActive)
        // What the owner switches off keeps what was proven.
        #expect(stopped.incoming.status == .success && stopped.incoming.enabled)
        let lease = database.lease(id, .poll, profile.id)
        guard case .skip? = try await store.check([lease])[lease.job] else {
          Issue.record("a worker would poll the mailbox of an inactive owner")
          return
        }
      }
      let answers = try await store.requestTest(of: [mailbox.id, queueMailbox.id], by: ada)
      #expect(answers.map(\.code) == ["owner-inactive", "owner-inactive"])
      #expect(try await store.requestPoll(of: [mailbox.id], by: ada).map(\.code) == ["not-running"])

      try await switched(true)
      #expect(try await told([mailbox.id, queueMailbox.id]))
      for id in [mailbox.id, queueMailbox.id] {
        let running = try await store.mailbox(id, for: ada)
        #expect(running.incoming.notRunningReason == nil && running.incoming.nextRunAt != nil)
        #expect(running.outgoing.notRunningReason == nil)
        let lease = database.lease(id, .poll, profile.id)
        guard case .run? = try await store.check([lease])[lease.job] else {
          Issue.record("a worker would not poll the mailbox of an active owner")
          return
        }
      }
      await listener.close()
    }
  }
}
