import ArgumentParser
import FoundationEssentials
import PostriderCore

/// `postrider mailbox connect`
struct MailboxConnect: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "connect", abstract: "Connect a mailbox by OAuth: its owner consents in the browser.",
    discussion: """
      Prints an address to be opened by the owner of the mailbox, waits until the provider has sent the browser back, and \
      for the test that follows. The address is good for one consent of this mailbox: show it to nobody else. Needs an \
      application on the profile (`postrider profile oauth set`). Exit code 1 when nobody consented in time or the test \
      failed.
      Example: postrider mailbox connect support@example.com
      """)

  @Argument(help: "The mailbox's id, address or owner's name.") var mailbox: String
  @Flag(name: .customLong("no-wait"), help: "Only print the address.") var doesNotWait = false
  @Option(help: ArgumentHelp("Seconds to wait, 1 to 900.", valueName: "seconds")) var timeout = 900
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func validate() throws {
    if !(1...900).contains(timeout) { throw ValidationError("--timeout must be from 1 to 900.") }
  }

  /// What --json prints: first the address, alone on a line, then the result.
  private struct Result: Encodable {
    var connection: MailboxConnection
    var mailbox: Mailbox
  }

  func execute(_ session: Session) async throws {
    let mailbox = try await Selection.mailbox(mailbox, session.api)
    let before: MailboxConnection = try await session.api.get("/mailboxes/\(mailbox.id)/connection")
    let request: ConsentRequest = try await session.api.post("/mailboxes/\(mailbox.id)/connect", [String: String]())
    if session.isJSON {
      try Terminal.print(try JSONCoding.text(request, pretty: false))
    } else {
      try session.print(
        "Open this address as the owner of \(Terminal.safe(mailbox.address)):\n\n\(request.consentURL)\n")
    }
    if doesNotWait { return }
    if !session.isJSON { Terminal.warn("Waiting for the consent, until \(Words.time(request.expiresAt)) …") }
    let end = ContinuousClock.now + .seconds(timeout)
    let connection = try await consented(mailbox, before, session, until: end)
    let tested = try await tested(mailbox, session, until: end)
    let directions = [tested.incoming, tested.outgoing].filter { $0.method != .none }
    if session.isJSON {
      try session.printJSON(Result(connection: connection, mailbox: tested))
    } else {
      try session.print("\(Terminal.safe(mailbox.address)) is connected.")
      try session.print(MailboxShow.details(tested).rendered())
    }
    if directions.contains(where: { $0.status != .success }) { throw ExitCode(1) }
  }

  /// How long the API may take to change a code into tokens.
  private static let exchange = Duration.seconds(30)

  /// Waits for a grant that is newer than the one before.
  private func consented(
    _ mailbox: Mailbox, _ before: MailboxConnection, _ session: Session, until end: ContinuousClock.Instant
  ) async throws -> MailboxConnection {
    var cameBack: ContinuousClock.Instant?
    while true {
      let now: MailboxConnection = try await session.api.get("/mailboxes/\(mailbox.id)/connection")
      if now.grantedAt != before.grantedAt && now.grantedAt != nil { return now }
      // The browser came back; now the tokens are fetched, or the provider said no.
      if now.consentExpiresAt == nil && cameBack == nil { cameBack = .now }
      if let cameBack, ContinuousClock.now - cameBack > Self.exchange {
        throw ClientError.failed(
          "the consent came to nothing: the browser's page says why. Begin again with `postrider mailbox connect`")
      }
      if ContinuousClock.now >= end {
        throw ClientError.failed(
          "nobody consented in time; the address is good until \(Words.time(now.consentExpiresAt))")
      }
      try await Task.sleep(for: .seconds(1))
    }
  }

  /// Waits for the test that the consent asked for, if it may run.
  private func tested(
    _ mailbox: Mailbox, _ session: Session, until end: ContinuousClock.Instant
  ) async throws -> Mailbox {
    while true {
      let now: Mailbox = try await session.api.get("/mailboxes/\(mailbox.id)")
      if now.testsServed >= now.testsRequested || ContinuousClock.now >= end { return now }
      try await Task.sleep(for: .milliseconds(500))
    }
  }
}

/// `postrider mailbox connection`
struct MailboxConnectionShow: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "connection", abstract: "Show how mailboxes are connected by OAuth, and what is wrong with it.",
    discussion: """
      With --json one mailbox is an object, several are an array. No token is ever shown.
      Example: postrider mailbox connection support@example.com
      """)

  @Argument(help: "Ids, addresses or owners' names.") var mailboxes: [String]
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    var found: [MailboxConnection] = []
    for mailbox in try await Selection.mailboxes(mailboxes, session.api) {
      found.append(try await session.api.get("/mailboxes/\(mailbox.id)/connection"))
    }
    try session.show(found) { Self.text($0) }
  }

  static func text(_ connection: MailboxConnection) -> String {
    var details = Details()
    details.add("mailbox", "\(connection.address) (\(connection.mailboxID))")
    details.add("state", connection.state.rawValue)
    details.add("flow", connection.flow?.rawValue)
    details.add(
      "consent",
      Words.timeAndDistance(connection.grantedAt).map { "\($0), begun by \(connection.grantedBy ?? "somebody")" })
    details.add("granted", connection.scopes.isEmpty ? nil : connection.scopes.joined(separator: " "))
    details.add("missing", connection.missingScopes.isEmpty ? nil : connection.missingScopes.joined(separator: " "))
    details.add("token until", Words.timeAndDistance(connection.accessTokenExpiresAt))
    details.add("token got", Words.timeAndDistance(connection.refreshedAt))
    if let code = connection.failureCode {
      details.add("last failure", "\(code), \(Words.time(connection.failedAt))")
      details.add("said", connection.failureWords)
      details.add("what to do", Words.explanation(code)?.remedy)
    }
    details.add("waits for", connection.consentExpiresAt.map { "a consent, until \(Words.time($0))" })
    for words in connection.diagnosis { details.add("note", words) }
    return details.rendered()
  }
}

/// `postrider mailbox disconnect`
struct MailboxDisconnect: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "disconnect", abstract: "Forget the consent for mailboxes and tell the provider.",
    discussion: """
      Both directions that use it stop. Asks before, unless --yes is given.
      Example: postrider mailbox disconnect support@example.com
      """)

  @Argument(help: "Ids, addresses or owners' names.") var mailboxes: [String]
  @Flag(help: "Do not ask.") var yes = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let chosen = try await Selection.mailboxes(mailboxes, session.api)
    let words = Words.count(chosen.count, "mailbox")
    try Confirmation.ask(
      "Disconnect \(words)? Their owners would have to consent again.", yes: yes,
      refusal: "\(words) would be disconnected: say --yes")
    var ended: [Disconnection] = []
    for mailbox in chosen {
      ended.append(try await session.api.post("/mailboxes/\(mailbox.id)/disconnect", [String: String]()))
    }
    if session.isJSON { return try session.printJSON(ended) }
    for (mailbox, end) in zip(chosen, ended) {
      let provider =
        switch end.revoked {
        case true?: "the provider was told"
        case false?: "the provider could not be told: \(end.problem ?? "")"
        case nil: "the provider has no address to be told at"
        }
      let address = Terminal.safe(mailbox.address)
      try session.print(
        end.wasConnected ? "\(address) is disconnected; \(Terminal.safe(provider))." : "\(address) was not connected.")
    }
  }
}
