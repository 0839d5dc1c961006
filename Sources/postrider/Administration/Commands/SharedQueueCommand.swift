import ArgumentParser
import PostriderCore

/// `postrider shared-queue …`
struct SharedQueueCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "shared-queue",
    abstract: "Shared queues: addresses such as support@ with an owner and members.",
    discussion: "The word `queue` alone is the job queue: postrider queue.",
    subcommands: [
      SharedQueueCreate.self, SharedQueueList.self, SharedQueueShow.self, SharedQueueEdit.self,
      SharedQueueActivate.self, SharedQueueDeactivate.self, SharedQueueDelete.self,
    ])
}

/// The body that the API reads as Core's `SharedQueueDraft`.
private struct SharedQueueRequest: Encodable {
  var address: String
  var name: String?
  var ownerID: UserID?
  var memberIDs: [UserID]?
}

/// The body that the API reads as Core's `SharedQueueChange`.
private struct SharedQueueChangeRequest: Encodable {
  var name: String?
  var address: String?
  var ownerID: UserID?
  var memberIDs: [UserID]?
  var version: Int64?
}

extension Selection {
  /// The ids of these users, each once.
  fileprivate static func users(_ names: [String], _ api: APIClient) async throws -> [UserID] {
    var ids: [UserID] = []
    for name in names {
      let id = try await user(name, api).id
      if !ids.contains(id) { ids.append(id) }
    }
    return ids
  }
}

/// `postrider shared-queue create`
struct SharedQueueCreate: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "create", abstract: "Enter a shared queue.",
    discussion: """
      Its owner and members see its mailboxes. A mailbox for it: postrider mailbox create --owner-kind queue.
      Example: postrider shared-queue create support@example.com --name Support --owner ann@example.com \
      --member bob@example.com --member cy@example.com
      """)

  @Argument(help: "The e-mail address, unique among the shared queues.") var address: String
  @Option(help: ArgumentHelp("The display name, at most 200 characters (default: the address).", valueName: "name"))
  var name: String?
  @Option(
    help: ArgumentHelp("Who answers for it: a user by id, address or name (default: you).", valueName: "user"))
  var owner: String?
  @Option(help: ArgumentHelp("Who else sees its mailboxes; can be given several times.", valueName: "user"))
  var member: [String] = []
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    var request = SharedQueueRequest(address: address, name: name)
    if let owner { request.ownerID = try await Selection.user(owner, session.api).id }
    if !member.isEmpty { request.memberIDs = try await Selection.users(member, session.api) }
    let queue: SharedQueue = try await session.api.post("/shared-queues", request)
    if session.isJSON { return try session.printJSON(queue) }
    try session.print("Entered the shared queue \(queue.id), \(Terminal.safe(queue.address)).")
  }
}

/// `postrider shared-queue list`
struct SharedQueueList: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List shared queues by address.",
    discussion: "Example: postrider shared-queue list --inactive")

  @OptionGroup var people: PeopleOptions
  @OptionGroup var list: ListOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    try await session.list(
      SharedQueue.path, people.query, list, SharedQueue.noun,
      [.number("ID"), .flexible("ADDRESS"), .flexible("NAME"), .flexible("OWNER"), .number("MEMBERS"), .text("STATE")]
    ) { (queue: SharedQueue) in
      [
        "\(queue.id)", queue.address, queue.name, queue.owner?.address ?? "-", "\(queue.members.count)",
        queue.isActive ? "active" : "inactive",
      ]
    }
  }
}

/// `postrider shared-queue show`
struct SharedQueueShow: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show shared queues with owner and members.",
    discussion: """
      With --json one is an object, several are an array.
      Example: postrider shared-queue show support@example.com
      """)

  @Argument(help: "Ids, addresses or names of shared queues.") var queues: [String]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws { try await session.show(queues, Self.details) }

  static func details(_ queue: SharedQueue) -> Details {
    var details = Details()
    details.add("id", "\(queue.id)")
    details.add("name", queue.name)
    details.add("address", queue.address)
    details.add("active", queue.isActive ? "yes" : "no: its mailboxes stand still")
    details.add("owner", queue.owner.map { "\($0.name) <\($0.address)>" } ?? "nobody: give it one with --owner")
    details.add("members", queue.members.isEmpty ? "none" : queue.members.map(\.address).joined(separator: ", "))
    details.add("created", Words.timeAndDistance(queue.createdAt))
    details.add("changed", Words.timeAndDistance(queue.updatedAt))
    details.add("version", "\(queue.version)")
    return details
  }
}

/// `postrider shared-queue edit`
struct SharedQueueEdit: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "edit", abstract: "Change a shared queue, its owner or its members.",
    discussion: """
      What is not named stays.
      Example: postrider shared-queue edit support@example.com --member dee@example.com --no-member bob@example.com
      Example: postrider shared-queue edit support@example.com --owner dee@example.com
      """)

  @Argument(help: "The id, address or name of a shared queue.") var queue: String
  @Option(help: ArgumentHelp("Another display name.", valueName: "name")) var name: String?
  @Option(help: ArgumentHelp("Another address; the addresses of its mailboxes stay.", valueName: "address"))
  var address: String?
  @Option(help: ArgumentHelp("Give it to this user, by id, address or name.", valueName: "user")) var owner: String?
  @Option(help: ArgumentHelp("A further member; can be given several times.", valueName: "user"))
  var member: [String] = []
  @Option(
    name: .customLong("no-member"),
    help: ArgumentHelp("Who is a member no longer; can be given several times.", valueName: "user"))
  var noMember: [String] = []
  @Option(
    help: ArgumentHelp(
      "Refuse the change when somebody else changed the queue since this version.",
      discussion: "The version is in `shared-queue show`.", valueName: "number"))
  var ifVersion: Int64?
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    if name == nil && address == nil && owner == nil && member.isEmpty && noMember.isEmpty {
      throw ValidationError("Nothing is to be changed: give an option, such as --member.")
    }
  }

  func execute(_ session: Session) async throws {
    let found = try await Selection.sharedQueue(queue, session.api)
    var request = SharedQueueChangeRequest(name: name, address: address, version: ifVersion)
    if let owner { request.ownerID = try await Selection.user(owner, session.api).id }
    if !member.isEmpty || !noMember.isEmpty {
      let added = try await Selection.users(member, session.api)
      let removed = try await Selection.users(noMember, session.api)
      let present = found.members.map(\.id)
      request.memberIDs = (present + added.filter { !present.contains($0) }).filter { !removed.contains($0) }
      // The list is sent whole, so it must be of the members that were read.
      request.version = ifVersion ?? found.version
    }
    let changed: SharedQueue = try await session.api.patch("/shared-queues/\(found.id)", request)
    if session.isJSON { return try session.printJSON(changed) }
    try session.print("Changed the shared queue \(Terminal.safe(changed.address)).\n")
    try session.print(SharedQueueShow.details(changed).rendered())
  }
}

/// `postrider shared-queue activate`
struct SharedQueueActivate: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "activate", abstract: "Let the mailboxes of shared queues run again.",
    discussion: "Example: postrider shared-queue activate support@example.com")

  @Argument(help: "Ids, addresses or names of shared queues.") var queues: [String]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws { try await session.activate(SharedQueue.self, queues, true) }
}

/// `postrider shared-queue deactivate`
struct SharedQueueDeactivate: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "deactivate", abstract: "Stop the mailboxes of shared queues.",
    discussion: """
      Nothing is lost: running sessions end by themselves, no new one begins until the queue is activated again.
      Example: postrider shared-queue deactivate support@example.com
      """)

  @Argument(help: "Ids, addresses or names of shared queues.") var queues: [String]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws { try await session.activate(SharedQueue.self, queues, false) }
}

/// `postrider shared-queue delete`
struct SharedQueueDelete: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "delete", abstract: "Delete a shared queue.",
    discussion: """
      Refused as long as it has mailboxes; the answer names them. Asks before, unless --yes is given.
      Example: postrider shared-queue delete support@example.com --yes
      """)

  @Argument(help: "The id, address or name of a shared queue.") var queue: String
  @Flag(help: "Do not ask.") var yes = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    try await session.delete(SharedQueue.self, queue, yes: yes)
  }
}
