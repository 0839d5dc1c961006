import ArgumentParser
import PostriderCore

/// `postrider mailbox import`
struct MailboxImport: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "import", abstract: "Create the mailboxes of a CSV file.",
    discussion: """
      The first row names the columns, in any order: \(ImportColumn.allCases.map(\.rawValue).joined(separator: ", ")). \
      Only address must be there. An empty field means the organization's default, as in `postrider mailbox create`. \
      UTF-8, commas between fields; a field with commas, quotes or line ends stands in quotes. At most 200000 rows.
      Rows that are wrong are listed, the others are created: mend the file and import it again. Mailboxes that are there \
      already, with the same settings, are left as they are.
      New mailboxes wait for approval and a test. Exit code 1 when a row failed.
      Examples:
        postrider mailbox import --template > mailboxes.csv
        postrider mailbox import mailboxes.csv --dry-run
      Example: postrider mailbox import mailboxes.csv
      """)

  @Argument(help: ArgumentHelp("The file; - reads standard input.", valueName: "file")) var file: String?

  @Flag(help: "Only say what would be done, with every wrong row.") var dryRun = false

  @Flag(inversion: .prefixedNo, help: "Wait until the mailboxes are created, and list the rows that failed.")
  var wait = true

  @Flag(help: "Print an example of a file and do nothing.") var template = false

  @OptionGroup(title: "Connection and output") var options: ClientOptions

  /// What `--template` prints.
  static let example = """
    address,ownerKind,ownerName,profile,incomingMethod,outgoingMethod,allowsCredentials,userName,password,processEmailFrom,deleteAfterProcessing
    ada@example.com,user,Ada Lovelace,,,,,,,,
    support@example.com,queue,Support,Example mail,server-side-sync,server-side-sync,true,support,"pass, with a comma",2026-03-01,true
    """

  func validate() throws {
    if (file == nil) != template { throw ValidationError("Name one file, or give --template.") }
  }

  func run() async throws {
    // Needs no API.
    if template { return try await ClientError.told { try Terminal.print(Self.example) } }
    try await Session.open(options) { session in try await execute(session) }
  }

  func execute(_ session: Session) async throws {
    let source = try MessageFile(file ?? "-")
    defer { source.close() }
    let batch: Batch = try await session.api.upload(
      "/mailbox-imports", [("dryRun", dryRun ? "true" : nil)], source, type: "text/csv")
    if !wait { return try session.announce(batch) }
    try await BatchWatcher(session: session).report(batch.id)
  }
}
