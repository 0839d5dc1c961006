import ArgumentParser
import PostriderCore

/// `postrider mailbox create`
struct MailboxCreate: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "create", abstract: "Create a mailbox.",
    discussion: """
      The password comes from --password-stdin, --password-file, POSTRIDER_MAILBOX_PASSWORD or, at a terminal, a \
      question without echo. It is never an argument: every user of the machine can read arguments in the list of \
      processes, and the shell keeps them in its history.
      A new mailbox waits for approval and a test: postrider mailbox approve, then postrider mailbox test.
      Example: postrider mailbox create --address support@example.com --profile "Example mail" --owner-kind queue
      """)

  @Option(
    help: ArgumentHelp(
      "The e-mail address, unique, at most 254 characters.", discussion: "Example: --address support@example.com",
      valueName: "address"))
  var address: String

  @Option(
    help: ArgumentHelp(
      "The server profile, by id or name.", discussion: "Default: the organization's default profile.",
      valueName: "profile"))
  var profile: String?

  @Option(
    help: ArgumentHelp(
      "The login name, at most 200 characters.", discussion: "Default: the address.", valueName: "name"))
  var userName: String?

  @OptionGroup(title: "Password (also POSTRIDER_MAILBOX_PASSWORD)") var password: PasswordOptions

  @Option(
    help: ArgumentHelp(
      "The owner's display name, at most 200 characters.",
      discussion: "Default: the owner with this address, who is created when there is none.", valueName: "name"))
  var ownerName: String?

  @Option(help: ArgumentHelp("What the owner is: user or queue.", valueName: "kind"))
  var ownerKind: OwnerKind = .user

  @Option(
    help: ArgumentHelp(
      "Receiving: none or server-side-sync.", discussion: "Default: what `settings show` says.", valueName: "method"))
  var incoming: SyncMethod?

  @Option(
    help: ArgumentHelp(
      "Sending: none or server-side-sync.", discussion: "Default: what `settings show` says.", valueName: "method"))
  var outgoing: SyncMethod?

  @Option(
    help: ArgumentHelp(
      "Appointments, contacts and tasks: none or server-side-sync.", discussion: "Default: what `settings show` says.",
      valueName: "method"))
  var act: SyncMethod?

  @Option(
    help: ArgumentHelp(
      "Mail received earlier is not imported: a day or a moment, UTC.",
      discussion: "Default: the profile's. Example: --process-email-from 2026-01-31", valueName: "date"))
  var processEmailFrom: DateArgument?

  @Flag(help: "Remove messages from the server once they are stored; for queues only.")
  var deleteAfterProcessing = false

  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    if deleteAfterProcessing && ownerKind != .queue {
      throw ValidationError("--delete-after-processing needs --owner-kind queue.")
    }
  }

  func execute(_ session: Session) async throws {
    var profileID: ProfileID?
    if let profile { profileID = try await Selection.profile(profile, session.api).id }
    let secret = try password.read(
      variable: "POSTRIDER_MAILBOX_PASSWORD", question: "Password of \(Terminal.safe(address)) (empty for none): ")
    let mailbox: Mailbox = try await session.api.post("/mailboxes", request(profileID, secret))
    if session.isJSON { return try session.printJSON(mailbox) }
    try session.print("Created the mailbox \(Terminal.safe(mailbox.address)).\n")
    try session.print(MailboxShow.details(mailbox).rendered())
    if mailbox.approval == .pending {
      try session.print("\nNext: postrider mailbox approve \(mailbox.id), then postrider mailbox test \(mailbox.id)")
    } else {
      try session.print("\nNext: postrider mailbox test \(mailbox.id)")
    }
  }

  func request(_ profileID: ProfileID?, _ secret: Secret?) -> MailboxRequest {
    let owner =
      ownerKind == .user && ownerName == nil ? nil : OwnerRequest(kind: ownerKind, name: ownerName)
    return MailboxRequest(
      address: address, owner: owner, profileID: profileID, incomingMethod: incoming, outgoingMethod: outgoing,
      actMethod: act, userName: userName, password: secret.map { SentSecret($0) },
      processEmailFrom: processEmailFrom?.date,
      deleteAfterProcessing: deleteAfterProcessing ? true : nil)
  }
}
