import ArgumentParser
import PostriderCore

/// `postrider audit …`
struct AuditCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "audit", abstract: "What people did, and what they were refused.", subcommands: [AuditList.self])
}

/// `postrider audit list`
struct AuditList: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List what people did, newest first.",
    discussion: """
      With --json each row has what was before and after. Secrets are in none.
      Example: postrider audit list --action mailbox --from 2026-01-31
      Example: postrider audit list --entity server-profile --id 3 --json
      """)

  @Option(
    help: ArgumentHelp(
      "Only this action, or all of a kind.", discussion: "Example: --action mailbox.update, --action request.refused",
      valueName: "action"))
  var action: String?
  @Option(help: ArgumentHelp("Only what was done to this kind of thing: mailbox, user, …", valueName: "kind"))
  var entity: String?
  @Option(help: ArgumentHelp("Only what was done to the one of this number.", valueName: "id")) var id: Int64?
  @Option(help: ArgumentHelp("Only what this user did, by id, address or name.", valueName: "user")) var user: String?
  @Option(help: ArgumentHelp("Not before: a day or a moment, UTC.", valueName: "date")) var from: DateArgument?
  @Option(help: ArgumentHelp("Before: a day or a moment, UTC.", valueName: "date")) var to: DateArgument?
  @OptionGroup var list: ListOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    if let id, id < 1 { throw ValidationError("--id must be a positive number.") }
    if id != nil && entity == nil { throw ValidationError("--id needs --entity: numbers are of one kind of thing.") }
  }

  func execute(_ session: Session) async throws {
    var person: UserID?
    if let user { person = try await Selection.user(user, session.api).id }
    let page: Page<AuditRecord> = try await Selection.list(
      "/audit",
      [
        ("action", action), ("entity", entity), ("id", id.map(String.init)), ("user", person?.description),
        ("from", from.map { JSONCoding.text($0.date) }), ("to", to.map { JSONCoding.text($0.date) }),
      ], limit: list.limit, cursor: list.cursor, session.api)
    if session.isJSON { return try session.printJSON(page) }
    var table = Table(.text("AT"), .flexible("WHO"), .text("ACTION"), .text("TO"), .flexible("CHANGED"))
    for record in page.items {
      table.add(
        Words.time(record.at), record.userName, record.action,
        record.entityID.map { "\(record.entity) \($0)" } ?? record.entity, Self.changes(record))
    }
    try session.print(table, page, "entry", plural: "entries")
  }

  /// The names of the fields that are not what they were.
  static func changes(_ record: AuditRecord) -> String {
    guard case .object(let after)? = record.after else { return "" }
    guard case .object(let before)? = record.before else {
      return record.action == "request.refused" ? Self.refusal(after) : ""
    }
    return Set(before.keys).union(after.keys).filter { before[$0] != after[$0] }.sorted().joined(separator: ", ")
  }

  private static func refusal(_ fields: [String: JSONDocument]) -> String {
    func text(_ key: String) -> String {
      guard case .string(let value)? = fields[key] else { return "" }
      return value
    }
    return "\(text("method")) \(text("route")) without \(text("right"))"
  }
}
