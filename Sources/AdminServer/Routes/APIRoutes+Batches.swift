import HTTPTypes
import Hummingbird
import NIOCore
import PostriderCore
import ServiceLifecycle

extension APIRoutes {
  /// Long work over many mailboxes. An owner sees none of it; asking for it takes the right of its verb.
  static let batches: [APIRoute] = [
    .get(
      "/batches", .right(.readBatches), query: pageQuery, answers: .of(Page<Batch>.self), "Batches, newest first.",
      handler: listBatches),
    .post(
      "/batches", .right(.readBatches), body: .batchDraft, status: 202, answers: .of(Batch.self),
      "Begins long work over the mailboxes of a filter or of a list of ids.", handler: createBatch
    ).takingLargeBodies().repeatable(),
    .get(
      "/batches/{id}", .right(.readBatches), answers: .of(Batch.self), "How far a batch is, and its first failures.",
      handler: showBatch),
    .get(
      "/batches/{id}/results", .right(.readBatches),
      query: [
        QueryParameter(
          "result", .choice(BatchRowState.allCases.map(\.rawValue)), "Only rows that are at this; all when left out."),
        "limit", "cursor",
      ], answers: .of(Page<BatchResult>.self),
      "What became of a batch's rows, by number.", handler: listResults),
    .get(
      "/batches/{id}/events", .right(.readBatches), answers: .octets(mediaType: "text/event-stream"),
      "How far a batch is, as server-sent events; a stream ends after a while, go on with Last-Event-ID.",
      handler: streamBatch),
    .post(
      "/batches/{id}/cancel", .right(.readBatches), body: .nothing, status: 200, answers: .of(Batch.self),
      "Ends a batch; what was done stays done.", handler: cancelBatch),
    .upload(
      "/mailbox-imports", .right(.writeMailboxes), type: "text/csv",
      query: [QueryParameter("dryRun", .boolean, "Only look what would become of each row.", standard: "false")],
      status: 202, answers: .of(Batch.self),
      "Creates the mailboxes of a CSV file, as a batch.", handler: importMailboxes),
  ]

  private static func accepted(_ batch: Batch, _ call: APICall) throws -> Response {
    try call.answer(batch, headers: [.location: "\(prefix)/batches/\(batch.id)"])
  }

  @Sendable static func listBatches(_ services: APIServices, _ call: APICall) async throws -> Response {
    let page = try call.readQuery { $0.page() }
    return try call.answer(try await services.store.batches(page, for: call.principal))
  }

  @Sendable static func createBatch(_ services: APIServices, _ call: APICall) async throws -> Response {
    let draft = try call.decode(BatchDraft.self)
    try call.require(draft.verb.right)
    try draft.check()
    return try accepted(try await services.store.createBatch(draft, by: call.principal), call)
  }

  @Sendable static func showBatch(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await services.store.batch(try call.identifier(), for: call.principal))
  }

  @Sendable static func listResults(_ services: APIServices, _ call: APICall) async throws -> Response {
    let (state, page): (BatchRowState?, PageRequest) = try call.readQuery { query in
      (query.choice("result"), query.page())
    }
    return try call.answer(
      try await services.store.batchResults(of: try call.identifier(), in: state, page, for: call.principal))
  }

  @Sendable static func cancelBatch(_ services: APIServices, _ call: APICall) async throws -> Response {
    let id: BatchID = try call.identifier()
    try call.require(try await services.store.batch(id, for: call.principal).verb.right)
    return try call.answer(try await services.store.cancelBatch(id, by: call.principal))
  }

  // MARK: Events

  /// Each event has the whole state and the batch's version as its id, so a client that connects again misses nothing.
  @Sendable static func streamBatch(_ services: APIServices, _ call: APICall) async throws -> Response {
    let id: BatchID = try call.identifier()
    let first = try await services.store.batch(id, for: call.principal)
    let known = call.headers[.lastEventID].flatMap { Int64($0) }
    let configuration = services.configuration
    return Response(
      status: .ok,
      headers: [.contentType: "text/event-stream; charset=utf-8", .accelBuffering: "no"],
      body: ResponseBody { writer in
        let end = ContinuousClock.now + configuration.eventStreamDuration
        var batch = first
        var sent = known
        var written = ContinuousClock.now
        try await writer.write(ByteBuffer(string: "retry: 2000\n\n"))
        while true {
          if batch.version != sent || batch.state.isOver {
            try await writer.write(try event(batch))
            (sent, written) = (batch.version, .now)
          }
          if batch.state.isOver || ContinuousClock.now >= end || Task.isShuttingDownGracefully { break }
          try await Task.sleep(for: configuration.eventInterval)
          // A comment, by which both ends see that the other is there.
          if ContinuousClock.now - written > .seconds(15) {
            try await writer.write(ByteBuffer(string: ": nothing new\n\n"))
            written = .now
          }
          // When the store does not answer, the stream ends, and the client asks again.
          guard let next = try? await services.store.batch(id, for: call.principal) else { break }
          batch = next
        }
        try await writer.finish(nil)
      })
  }

  private static func event(_ batch: Batch) throws -> ByteBuffer {
    var buffer = ByteBuffer(
      string: "id: \(batch.version)\nevent: \(batch.state.isOver ? "finished" : "progress")\ndata: ")
    buffer.writeImmutableBuffer(try APICoding.encode(batch))
    buffer.writeString("\n\n")
    return buffer
  }

  // MARK: Imports

  /// Rows stored at once while a file arrives.
  private static let importPart = 1_000

  @Sendable static func importMailboxes(
    _ services: APIServices, _ call: APICall, _ body: RequestBody
  ) async throws -> Response {
    let dryRun = try call.readQuery { $0.boolean("dryRun") } ?? false
    let id = try await services.store.beginImport(dryRun: dryRun, by: call.principal)
    do {
      try await receive(body, into: id, services, call)
    } catch {
      // Cancelled or not: nothing of a file that broke off may stay. What cannot be removed now is removed later.
      let (store, principal) = (services.store, call.principal)
      _ = await Task { try? await store.abandonImport(id, by: principal) }.value
      throw error
    }
    return try accepted(try await services.store.finishImport(id, by: call.principal), call)
  }

  private static func receive(
    _ body: RequestBody, into id: BatchID, _ services: APIServices, _ call: APICall
  ) async throws {
    let configuration = services.configuration
    var reader = MailboxImportReader()
    var rows: [ImportRow] = []
    var octets: Int64 = 0
    func store(all: Bool = false) async throws {
      while rows.count >= importPart || (all && !rows.isEmpty) {
        try await services.store.addImportRows(Array(rows.prefix(importPart)), to: id, by: call.principal)
        rows.removeFirst(min(importPart, rows.count))
      }
    }
    var parts = body.makeAsyncIterator()
    while let buffer = try await next(&parts) {
      octets += Int64(buffer.readableBytes)
      if octets > configuration.maximumMessageOctets { throw Problem.tooLarge(configuration.maximumMessageOctets) }
      rows += try reader.append(buffer.readableBytesView)
      if reader.columns.contains(.password) && !call.isSecure
        && !configuration.allowsCredentialsEntryViaNonSecureChannels
      {
        throw Problem.insecureChannel
      }
      try await store()
    }
    rows += try reader.finish()
    if reader.isEmpty {
      throw Problem.invalid([FieldProblem("", "required", "must have a row that names the columns, and rows below it")])
    }
    try await store(all: true)
  }

  private static func next(_ parts: inout RequestBody.AsyncIterator) async throws -> ByteBuffer? {
    do {
      return try await parts.next()
    } catch let error where !(error is CancellationError) {
      throw Problem(.badRequest, "malformed-request", "The file could not be read to its end; nothing was stored.")
    }
  }
}

extension BatchVerb {
  /// Who may ask for it.
  var right: Right {
    switch self {
    case .approve, .reject: .approveMailboxes
    case .test, .poll, .applyDefaults, .writeDefaults, .delete, .deleteWithUnsentMail, .importMailboxes: .writeMailboxes
    }
  }
}
