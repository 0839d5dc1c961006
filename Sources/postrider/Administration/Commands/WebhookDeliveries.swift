import ArgumentParser
import FoundationEssentials
import PostriderCore

/// `postrider webhook deliveries …`
struct WebhookDeliveries: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "deliveries", abstract: "What was sent to webhooks, waits, or was given up.",
    subcommands: [WebhookDeliveriesList.self, WebhookDeliveriesRetry.self],
    defaultSubcommand: WebhookDeliveriesList.self)
}

/// `postrider webhook deliveries list`
struct WebhookDeliveriesList: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List deliveries, newest first.",
    discussion: "Example: postrider webhook deliveries list --webhook 3 --state dead")

  @Option(help: ArgumentHelp("Only those to this webhook.", valueName: "id")) var webhook: Int64?
  @Option(help: ArgumentHelp("Only these: pending, delivered or dead.", valueName: "state"))
  var state: WebhookDeliveryState?
  @OptionGroup var list: ListOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let page: Page<WebhookDelivery> = try await Selection.list(
      "/webhook-deliveries", [("webhook", webhook.map { "\($0)" }), ("state", state?.rawValue)], limit: list.limit,
      cursor: list.cursor, session.api)
    if session.isJSON { return try session.printJSON(page) }
    var table = Table(
      .number("ID"), .number("WEBHOOK"), .text("EVENT"), .number("EMAIL"), .text("STATE"), .number("TRIES"),
      .text("NEXT TRY"), .flexible("LAST ERROR"))
    for delivery in page.items {
      table.add(
        "\(delivery.id)", "\(delivery.webhookID)", delivery.event.rawValue,
        delivery.emailID.map { "\($0)" } ?? "", delivery.state.rawValue, "\(delivery.attempts)",
        Words.time(delivery.nextTryAt), delivery.lastError ?? "")
    }
    try session.print(table, page, "delivery", plural: "deliveries")
  }
}

/// `postrider webhook deliveries retry`
struct WebhookDeliveriesRetry: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "retry", abstract: "Have deliveries tried again at once, also those that were given up.",
    discussion: """
      Exit code 1 when one of them was refused.
      Example: postrider webhook deliveries retry 17 18
      Example: postrider webhook deliveries retry --all-dead --webhook 3
      """)

  @Argument(help: "Ids of deliveries.") var deliveries: [Int64] = []
  @Flag(help: "All that were given up, or those of them to --webhook.") var allDead = false
  @Option(help: ArgumentHelp("With --all-dead: only those to this webhook.", valueName: "id")) var webhook: Int64?
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  private struct Request: Encodable {
    var ids: [WebhookDeliveryID]
  }

  private struct Answer: Codable {
    var results: [DeliveryResult]
  }

  func validate() throws {
    if deliveries.isEmpty == !allDead { throw ValidationError("Name deliveries by their ids, or give --all-dead.") }
    if webhook != nil && !allDead { throw ValidationError("--webhook goes with --all-dead.") }
    if let wrong = deliveries.first(where: { $0 < 1 }) { throw ValidationError("\(wrong) is not an id.") }
  }

  func execute(_ session: Session) async throws {
    var ids = deliveries.map { WebhookDeliveryID($0) }
    if allDead {
      let page: Page<WebhookDelivery> = try await Selection.list(
        "/webhook-deliveries", [("webhook", webhook.map { "\($0)" }), ("state", "dead")],
        limit: Selection.maximumScanned, session.api)
      ids = page.items.map(\.id)
    }
    var results: [DeliveryResult] = []
    // The API takes 1 to 1,000.
    for start in stride(from: 0, to: ids.count, by: 1_000) {
      let part = Array(ids[start..<min(start + 1_000, ids.count)])
      let answer: Answer = try await session.api.post("/webhook-deliveries/retry", Request(ids: part))
      results += answer.results
    }
    let refused = results.filter { !$0.ok }
    if session.isJSON {
      try session.printJSON(Answer(results: results))
    } else {
      for result in refused { try session.print("\(result.id): \(Terminal.safe(result.message ?? "refused"))") }
      let done = results.count - refused.count
      try session.print("\(done) \(done == 1 ? "delivery" : "deliveries") to be tried again.")
    }
    if !refused.isEmpty { throw ExitCode(1) }
  }
}
