import Hummingbird
import NIOCore
import PostriderCore

/// The named views of the alerts.
private enum AlertView: String, CaseIterable {
  /// Those of the asking person's mailboxes and profiles.
  case mine
}

extension APIRoutes {
  @Sendable static func listAlerts(_ services: APIServices, _ call: APICall) async throws -> Response {
    let (filter, page) = try call.readQuery { query in
      (
        AlertFilter(
          mailboxID: query.identifier("mailbox"), level: query.choice("level"),
          includeResolved: query.boolean("resolved") ?? false, isMine: query.choice("view") == AlertView.mine),
        query.page()
      )
    }
    return try call.answer(try await services.store.alerts(filter, page, for: call.principal))
  }

  @Sendable static func listRuns(_ services: APIServices, _ call: APICall) async throws -> Response {
    let (filter, page) = try call.readQuery { query in
      (
        RunFilter(
          mailboxID: query.identifier("mailbox"), kind: query.choice("kind") { (kind: JobKind) in kind.word },
          result: query.choice("result")), query.page()
      )
    }
    return try call.answer(try await services.store.runs(filter, page, for: call.principal))
  }

  @Sendable static func showRun(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await services.store.run(try call.identifier(), for: call.principal))
  }

  @Sendable static func listEmails(_ services: APIServices, _ call: APICall) async throws -> Response {
    let (mailbox, page): (MailboxID?, PageRequest) = try call.readQuery { ($0.identifier("mailbox"), $0.page()) }
    return try call.answer(try await services.store.emails(mailbox: mailbox, page, for: call.principal))
  }

  @Sendable static func showEmail(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await services.store.email(try call.identifier(), for: call.principal))
  }

  @Sendable static func showRawEmail(_ services: APIServices, _ call: APICall) async throws -> Response {
    let id: EmailID = try call.identifier()
    return try await raw(try await services.store.rawEmail(id, for: call.principal), fileName: "email-\(id).eml")
  }

  /// A message as octets, chunk by chunk as they are taken.
  static func raw(_ chunks: AsyncThrowingStream<[UInt8], any Error>, fileName: String) async throws -> Response {
    // The first chunk is awaited, so that an error before it is still a problem document and not half an answer.
    var iterator = chunks.makeAsyncIterator()
    let first = try await iterator.next()
    return Response(
      status: .ok,
      headers: [.contentType: "message/rfc822", .contentDisposition: "attachment; filename=\"\(fileName)\""],
      body: ResponseBody { writer in
        if let first {
          try await writer.write(ByteBuffer(bytes: first))
          for try await chunk in chunks { try await writer.write(ByteBuffer(bytes: chunk)) }
        }
        try await writer.finish(nil)
      })
  }
}
