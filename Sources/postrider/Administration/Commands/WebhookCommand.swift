import ArgumentParser
import FoundationEssentials
import PostriderCore

extension WebhookDeliveryState: ExpressibleByArgument {}

/// `postrider webhook …`
struct WebhookCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "webhook", abstract: "Webhooks: addresses at which new mail is announced.",
    subcommands: [
      WebhookCreate.self, WebhookList.self, WebhookShow.self, WebhookTest.self, WebhookDelete.self,
      WebhookDeliveries.self,
    ])
}

/// `postrider webhook create`
struct WebhookCreate: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "create", abstract: "Create a webhook; its secret is shown this once.",
    discussion: """
      Each message that is stored from now on is announced with a POST, at least once, signed as the Standard Webhooks \
      specification says: webhook-id, webhook-timestamp, webhook-signature (HMAC-SHA-256 over id.timestamp.body).
      Example: postrider webhook create https://app.example.com/hooks/mail --description "Ticket system"
      """)

  @Argument(help: "Where to: https://…") var url: String
  @Option(help: ArgumentHelp("Free text, at most 2,000 characters.", valueName: "text")) var description: String?
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  private struct Request: Encodable {
    var url: String
    var description: String?
  }

  /// A webhook and its secret.
  struct Created: Codable {
    var webhook: Webhook
    var secret: String

    private enum Key: CodingKey { case secret }

    init(from decoder: any Decoder) throws {
      webhook = try Webhook(from: decoder)
      secret = try decoder.container(keyedBy: Key.self).decode(String.self, forKey: .secret)
    }

    func encode(to encoder: any Encoder) throws {
      try webhook.encode(to: encoder)
      var container = encoder.container(keyedBy: Key.self)
      try container.encode(secret, forKey: .secret)
    }
  }

  func execute(_ session: Session) async throws {
    let created: Created = try await session.api.post("/webhooks", Request(url: url, description: description))
    if session.isJSON { return try session.printJSON(created) }
    try session.print("Created the webhook \(created.webhook.id). Its secret, shown this once:\n\n\(created.secret)\n")
    try session.print("Try it: postrider webhook test \(created.webhook.id)")
  }
}

/// `postrider webhook list`
struct WebhookList: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "List webhooks with what waits for them and what was given up.",
    discussion: "Example: postrider webhook list")

  @OptionGroup var list: ListOptions
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    try await session.list(
      "/webhooks", [], list, "webhook",
      [.number("ID"), .flexible("URL"), .number("PENDING"), .number("DEAD"), .text("LAST SUCCESS"), .flexible("STATE")]
    ) { (webhook: Webhook) in
      [
        "\(webhook.id)", webhook.url, "\(webhook.pending)", "\(webhook.dead)", Words.time(webhook.lastSuccessAt),
        webhook.failures == 0 ? "works" : "failed \(webhook.failures)×: \(webhook.lastError ?? "")",
      ]
    }
  }
}

/// `postrider webhook show`
struct WebhookShow: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Show webhooks.",
    discussion: "With --json one is an object, several are an array. Example: postrider webhook show 3")

  @Argument(help: "Ids of webhooks.") var webhooks: [Int64]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    var found: [Webhook] = []
    for id in webhooks {
      found.append(
        try await Selection.orNotFound("there is no webhook \(id)") { try await session.api.get("/webhooks/\(id)") })
    }
    try session.show(found) { webhook in
      var details = Details()
      details.add("id", "\(webhook.id)")
      details.add("url", webhook.url)
      details.add("description", webhook.description.isEmpty ? nil : webhook.description)
      details.add("pending", "\(webhook.pending)")
      details.add("given up", "\(webhook.dead)")
      details.add("last success", Words.timeAndDistance(webhook.lastSuccessAt))
      details.add(
        "last failure", Words.timeAndDistance(webhook.lastFailureAt).map { "\($0): \(webhook.lastError ?? "")" })
      details.add("tried again", webhook.failures == 0 ? nil : Words.timeAndDistance(webhook.retryAt))
      details.add("created", "\(Words.time(webhook.createdAt)) by \(webhook.createdBy)")
      return details.rendered()
    }
  }
}

/// `postrider webhook test`
struct WebhookTest: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "test", abstract: "Deliver an event of the type test and say what came of it.",
    discussion: "Exit code 1 when it did not arrive. Example: postrider webhook test 3")

  @Argument(help: "The id of a webhook.") var webhook: Int64
  @Option(help: ArgumentHelp("Seconds to wait, 1 to 600.", valueName: "seconds")) var timeout = 60
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    if !(1...600).contains(timeout) { throw ValidationError("--timeout must be from 1 to 600.") }
  }

  func execute(_ session: Session) async throws {
    var delivery: WebhookDelivery = try await Selection.orNotFound("there is no webhook \(webhook)") {
      try await session.api.post("/webhooks/\(webhook)/test", [String: String]())
    }
    let end = ContinuousClock.now + .seconds(timeout)
    while delivery.state == .pending && ContinuousClock.now < end {
      try await Task.sleep(for: .milliseconds(300))
      delivery = try await session.api.get("/webhook-deliveries/\(delivery.id)")
    }
    if session.isJSON {
      try session.printJSON(delivery)
    } else {
      switch delivery.state {
      case .delivered: try session.print("Delivered: the receiver answered \(delivery.lastStatus ?? 200).")
      case .dead: try session.print("Not delivered: \(Terminal.safe(delivery.lastError ?? "no reason is known")).")
      case .pending: try session.print("Not delivered yet; is a worker running? It goes on by itself.")
      }
    }
    if delivery.state != .delivered { throw ExitCode(1) }
  }
}

/// `postrider webhook delete`
struct WebhookDelete: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "delete", abstract: "Delete a webhook with its deliveries.",
    discussion: "Asks before, unless --yes is given. Example: postrider webhook delete 3 --yes")

  @Argument(help: "The id of a webhook.") var webhook: Int64
  @Flag(help: "Do not ask.") var yes = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  private struct Deleted: Codable {
    var deleted: Bool
  }

  func execute(_ session: Session) async throws {
    try Confirmation.ask(
      "Delete the webhook \(webhook)? What waits for it is not delivered.", yes: yes,
      refusal: "the webhook \(webhook) would be deleted: say --yes")
    let deleted: Deleted = try await Selection.orNotFound("there is no webhook \(webhook)") {
      try await session.api.post("/webhooks/\(webhook)/delete", [String: String]())
    }
    if session.isJSON { return try session.printJSON(deleted) }
    try session.print("Deleted.")
  }
}
