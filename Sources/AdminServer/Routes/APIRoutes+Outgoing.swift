import FoundationEssentials
import Hummingbird
import MailMessage
import PostriderCore

extension APIRoutes {
  /// Composes a message and stores it for sending. What is refused names the field or the reason why the mailbox does not
  /// send.
  @Sendable static func submitEmail(_ services: APIServices, _ call: APICall) async throws -> Response {
    let draft = try call.decode(OutgoingDraft.self)
    try draft.check()
    let mailbox = try await services.store.mailbox(draft.mailboxID, for: call.principal)
    let sender = try wireForm(ofMailbox: mailbox.address)
    let recipients = try wireForms(
      [("/to", draft.to), ("/cc", draft.cc ?? []), ("/bcc", draft.bcc ?? [])].flatMap { field, list in
        list.enumerated().map { ("\(field)/\($0)", $1) }
      })
    let messageID = MessageBuilder.newMessageID(for: sender)
    let builder = MessageBuilder(draft, from: mailbox.address, messageID: messageID, date: Date())
    let content: Content
    do {
      content = try compose(builder, in: services.configuration.spoolDirectory)
    } catch MessageError.invalid(let field, let reason) {
      throw Problem.invalid([FieldProblem("", "not-composable", "\(field) \(reason)")])
    }
    defer { MessageFiles.remove(content) }
    return try await store(
      OutgoingSubmission(
        mailboxID: mailbox.id, sender: sender, recipients: recipients, subject: draft.subject, messageID: messageID,
        raw: content, encoding: builder.encoding, priority: draft.priority ?? .normal, sendAfter: draft.sendAfter,
        idempotencyKey: draft.idempotencyKey, hold: draft.hold ?? false, notification: draft.notification,
        inReplyTo: (draft.inReplyTo ?? draft.references?.last).map(MessageIDRules.bare),
        autoSubmitted: draft.autoSubmitted), services, call)
  }

  /// Takes a whole message as it stands and stores it for sending. It goes to those whom `to` names, else to everybody in
  /// its own To, Cc and Bcc.
  @Sendable static func submitRawEmail(
    _ services: APIServices, _ call: APICall, _ body: RequestBody
  ) async throws -> Response {
    let options = try call.readQuery { RawOptions(&$0) }
    let mailbox = try await services.store.mailbox(options.mailboxID, for: call.principal)
    let sender = try wireForm(ofMailbox: mailbox.address)
    var intake = RawMessageIntake(
      sender: sender, maximumOctets: services.configuration.maximumMessageOctets,
      directory: services.configuration.spoolDirectory)
    defer { intake.remove() }
    let message: RawMessage
    do {
      for try await buffer in body {
        try buffer.withUnsafeReadableBytes { (bytes) throws(RawMessageError) in try intake.append(bytes) }
      }
      message = try intake.finish()
    } catch RawMessageError.invalid(let problems) {
      throw Problem.invalid(problems)
    } catch RawMessageError.tooLarge(let maximum) {
      throw Problem.tooLarge(maximum)
    } catch let error where !(error is RawMessageError || error is CancellationError) {
      throw Problem(.badRequest, "malformed-request", "The message could not be read to its end; nothing was stored.")
    }
    defer { MessageFiles.remove(message.content) }
    let named = options.recipients ?? message.recipients
    let recipients = try wireForms(named.map { (options.recipients == nil ? "header:to" : "?to", $0) })
    return try await store(
      OutgoingSubmission(
        mailboxID: mailbox.id, sender: sender, recipients: recipients, subject: message.subject,
        messageID: message.messageID, raw: message.content, encoding: message.encoding, priority: options.priority,
        sendAfter: options.sendAfter, idempotencyKey: options.idempotencyKey, hold: options.hold,
        notification: options.notification, inReplyTo: message.inReplyTo, autoSubmitted: message.autoSubmitted),
      services, call)
  }

  /// Characters of the parameter `to`. The head of a request takes few more; more recipients stand in the message.
  private static let maximumNamed = 8_000

  /// The parameters of a message that comes as it stands.
  static let rawMessage = [
    QueryParameter("mailbox", .identifier, isRequired: true, "The mailbox to send from."),
    QueryParameter(
      "to", .string, "Who gets it, with commas between; everybody in its own To, Cc and Bcc when left out.",
      in: 1...maximumNamed),
    QueryParameter(
      "priority", .choice(OutgoingPriority.allCases.map(\.rawValue)), "Which messages go first.", standard: "normal"),
    QueryParameter("sendAfter", .date, "Not before this time; at once when left out."),
    QueryParameter(
      "idempotencyKey", .string, "A key of your own: a second message of the mailbox with the same key is not sent.",
      in: 1...200),
    QueryParameter("hold", .boolean, "Whether it is kept as a draft.", standard: "false"),
    QueryParameter(
      "notify", .string,
      "When to report (RFC 3461): \(DSNCondition.allCases.map(\.rawValue).joined(separator: ", ")), with commas between.",
      in: 1...100),
    QueryParameter(
      "returns", .choice(DSNReturn.allCases.map(\.rawValue)),
      "How much comes back with a report; the server's choice when left out."),
  ]

  /// What the query says of a message that comes as it stands.
  private struct RawOptions {
    var mailboxID: MailboxID
    var recipients: [String]?
    var priority: OutgoingPriority
    var sendAfter: Date?
    var idempotencyKey: String?
    var hold: Bool
    var notification: DSNRequest?

    init(_ query: inout QueryReader) {
      let mailbox: MailboxID? = query.identifier("mailbox")
      if mailbox == nil, query.problems.problems.isEmpty {
        query.problems.add("?mailbox", "required", "must be the id of the mailbox to send from")
      }
      mailboxID = mailbox ?? MailboxID(0)
      recipients = query.text("to", maximum: APIRoutes.maximumNamed).map {
        $0.split(separator: ",").map { $0.trimmingSpaces() }
      }
      priority = query.choice("priority") ?? .normal
      sendAfter = query.date("sendAfter")
      idempotencyKey = query.text("idempotencyKey", maximum: 200)
      hold = query.boolean("hold") ?? false
      let words = query.text("notify", maximum: 100)?.split(separator: ",").map { $0.trimmingSpaces() }
      let notify = words?.compactMap(DSNCondition.init)
      if notify?.count != words?.count {
        let known = DSNCondition.allCases.map(\.rawValue).joined(separator: ", ")
        query.problems.add("?notify", "not-a-choice", "must be words of \(known), with commas between")
      }
      let returns: DSNReturn? = query.choice("returns")
      if notify != nil || returns != nil { notification = DSNRequest(notify: notify, returns: returns) }
      notification?.check(at: "?", &query.problems)
    }
  }

  private static func store(
    _ submission: OutgoingSubmission, _ services: APIServices, _ call: APICall
  ) async throws -> Response {
    let email = try await services.store.submit(submission, by: call.principal)
    return try call.answer(email, headers: [.location: "\(prefix)/outgoing-emails/\(email.id)"])
  }

  /// With files the message is written into a file: it would lie in memory twice.
  private static func compose(_ builder: MessageBuilder, in directory: String) throws -> Content {
    if builder.attachments.isEmpty { return .bytes(try builder.build()) }
    let path = MessageFiles.newPath(in: directory)
    return .file(path: path, sizeOctets: try builder.write(toFile: path))
  }

  private static func wireForm(ofMailbox address: String) throws -> String {
    guard let form = InternationalAddress.wireForm(address) else {
      throw Problem.invalid([
        FieldProblem("/mailboxID", "not-a-domain", "the domain of \(address) is none that mail could be sent from")
      ])
    }
    return form
  }

  /// Each recipient once, as it goes over the wire. Throws everything that is wrong.
  private static func wireForms(_ addresses: [(pointer: String, address: String)]) throws -> [String] {
    var problems = FieldProblems()
    var forms: [String] = []
    for (pointer, address) in addresses {
      let before = problems.problems.count
      AddressRules.check(address, at: pointer, isOthers: true, &problems)
      if problems.problems.count > before { continue }
      if let form = InternationalAddress.wireForm(address) {
        forms.append(form)
      } else {
        problems.add(pointer, "not-a-domain", "has a domain that cannot be written in A-labels (RFC 5891)")
      }
    }
    let distinct = AddressRules.distinct(forms)
    if addresses.isEmpty {
      problems.add("", "no-recipients", "name a recipient in To, Cc or Bcc, or with the parameter to")
    } else if distinct.count > OutgoingDraft.maximumRecipients {
      problems.add("", "too-many", "a message has at most \(OutgoingDraft.maximumRecipients) recipients")
    }
    try problems.throwIfAny()
    return distinct
  }

  @Sendable static func listOutgoing(_ services: APIServices, _ call: APICall) async throws -> Response {
    let (mailbox, state, page): (MailboxID?, OutgoingState?, PageRequest) = try call.readQuery { query in
      (query.identifier("mailbox"), query.choice("state"), query.page())
    }
    return try call.answer(
      try await services.store.outgoingEmails(mailbox: mailbox, state: state, page, for: call.principal))
  }

  @Sendable static func showOutgoing(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await services.store.outgoingEmail(try call.identifier(), for: call.principal))
  }

  private struct RetryRequest: Decodable {
    let resendUncertain: Bool?
  }

  @Sendable static func retryOutgoing(_ services: APIServices, _ call: APICall) async throws -> Response {
    let request = try call.decode(RetryRequest.self)
    return try call.answer(
      try await services.store.retryOutgoing(
        try call.identifier(), resendUncertain: request.resendUncertain ?? false, by: call.principal))
  }

  @Sendable static func cancelOutgoing(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await services.store.cancelOutgoing(try call.identifier(), by: call.principal))
  }
}
