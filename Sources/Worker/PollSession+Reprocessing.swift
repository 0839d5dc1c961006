import FoundationEssentials
import MailProtocols
import PostriderCore

/// Messages that people want out of quarantine.
extension PollSession {
  /// Tries those again whose octets are kept, before anything is asked of the server: it may not answer, or have lost
  /// them. Each gets one attempt, since the same octets will not read otherwise an hour later. Returns the others, which
  /// only the server has.
  func reprocess() async throws -> [KeptMessage] {
    guard task.assignment.reprocesses else { return [] }
    let startedAt = Date()
    let began = ContinuousClock.now
    let wanted = try await messagesToReprocess()
    let kept = wanted.filter(\.isKept)
    if !kept.isEmpty {
      for message in kept { try await reprocess(message) }
      _ = try await messagesToReprocess()
      trace.record(
        TraceStep(
          direction: .incoming, name: .store, tried: "\(kept.count) messages from quarantine", result: .ok,
          startedAt: startedAt, milliseconds: (ContinuousClock.now - began) / .milliseconds(1)))
    }
    return wanted.filter { !$0.isKept }
  }

  /// What people want out of quarantine and is not decided, as much as one session takes.
  func messagesToReprocess() async throws -> [KeptMessage] {
    let limit = task.settings.messagesPerPoll
    let wanted = try await context.store.messagesToReprocess(limit: limit + 1, writer: task.writer)
    if wanted.count > limit { progress.note { $0.moreMail = true } }
    return Array(wanted.prefix(limit))
  }

  private func reprocess(_ message: KeptMessage) async throws {
    var spool = newSpool()
    defer { spool.remove() }
    for try await chunk in try await context.store.keptOctets(
      of: message.id, organization: task.settings.organizationID)
    {
      try spool.append(chunk)
    }
    let (raw, hash) = try spool.finish()
    do {
      let received = try await parsed(message.uidl, raw, hash)
      defer { received.removeFiles() }
      note(try await context.store.store([received], writer: task.writer), [received])
    } catch let failure as Failure {
      try await giveBack(message, failure)
    } catch StoreError.statement(let state, let text) {
      try await giveBack(message, Failure(.messageStore, context: "\(state) \(text)"))
    }
  }

  /// Gives those back to the quarantine that the server does not list: there is nothing to wait for.
  func giveBack(_ awaited: [KeptMessage], missingFrom listed: Set<String>) async throws {
    for message in awaited where !listed.contains(message.uidl) {
      try await giveBack(message, Failure(.pop3Retrieve, context: "it is not on the server any more"))
    }
  }

  private func giveBack(_ message: KeptMessage, _ failure: Failure) async throws {
    note(failure)
    try await context.store.reprocessingFailed(message.id, failure, writer: task.writer)
  }
}
