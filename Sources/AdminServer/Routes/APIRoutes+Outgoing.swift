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
    let messageID = MessageBuilder.newMessageID(for: mailbox.address)
    let raw: [UInt8]
    do {
      raw = try MessageBuilder(
        from: EmailAddress(address: mailbox.address), to: draft.to.map { EmailAddress(address: $0) },
        cc: (draft.cc ?? []).map { EmailAddress(address: $0) }, subject: draft.subject, text: draft.text,
        html: draft.html, messageID: messageID, date: Date()
      ).build()
    } catch {
      throw Problem.invalid([FieldProblem("", "not-composable", "\(error)")])
    }
    let email = try await services.store.submit(
      OutgoingSubmission(
        mailboxID: mailbox.id, recipients: draft.recipients, subject: draft.subject, messageID: messageID,
        raw: .bytes(raw), priority: draft.priority ?? .normal, sendAfter: draft.sendAfter,
        idempotencyKey: draft.idempotencyKey, hold: draft.hold ?? false), by: call.principal)
    return try call.answer(email, headers: [.location: "\(prefix)/outgoing-emails/\(email.id)"])
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
