import PostriderCore
import Synchronization

/// Batches, imports and kept answers in memory.
final class FakeBatches: Sendable {
  struct State {
    var batches: [Batch] = []
    var results: [BatchID: [BatchResult]] = [:]
    var drafts: [BatchDraft] = []
    var rows: [ImportRow] = []
    var parts: [Int] = []
    var abandoned: [BatchID] = []
    var answers: [String: (hash: [UInt8], answer: KeptAnswer?)] = [:]
    /// What the next readings of a batch find, one after the other.
    var steps: [Batch] = []
    /// Thrown by `createBatch`.
    var failure: (any Error & Sendable)?
  }

  let state = Mutex(State())
}

extension FakeAdminStore {
  func createBatch(_ draft: BatchDraft, by principal: Principal) async throws -> Batch {
    try batches.state.withLock { state in
      if let failure = state.failure { throw failure }
      state.drafts.append(draft)
      let batch = Batch(
        id: BatchID(Int64(state.batches.count + 1)), verb: draft.verb, state: .running, dryRun: draft.dryRun ?? false,
        filter: draft.filter, total: draft.ids?.count ?? 9, requestedBy: principal.name, createdAt: Self.date)
      state.batches.append(batch)
      return batch
    }
  }

  func batches(_ page: PageRequest, for principal: Principal) async throws -> Page<Batch> {
    self.page(batches.state.withLock(\.batches), page)
  }

  func batch(_ id: BatchID, for principal: Principal) async throws -> Batch {
    try batches.state.withLock { state in
      if !state.steps.isEmpty { return state.steps.removeFirst() }
      guard principal.organizationID == OrganizationID(1), let batch = state.batches.first(where: { $0.id == id })
      else { throw StoreError.notFound("batch") }
      return batch
    }
  }

  func batchResults(
    of id: BatchID, in state: BatchRowState?, _ page: PageRequest, for principal: Principal
  ) async throws -> Page<BatchResult> {
    let all = batches.state.withLock { $0.results[id] ?? [] }
    return self.page(all.filter { state == nil || $0.result == state }, page)
  }

  func cancelBatch(_ id: BatchID, by principal: Principal) async throws -> Batch {
    var batch = try await batch(id, for: principal)
    batch.state = .canceled
    return batch
  }

  func beginImport(dryRun: Bool, by principal: Principal) async throws -> BatchID {
    batches.state.withLock { state in
      state.batches.append(
        Batch(
          id: BatchID(Int64(state.batches.count + 1)), verb: .importMailboxes, state: .receiving, dryRun: dryRun,
          total: 0, requestedBy: principal.name, createdAt: Self.date))
      return state.batches[state.batches.count - 1].id
    }
  }

  func addImportRows(_ rows: [ImportRow], to id: BatchID, by principal: Principal) async throws {
    batches.state.withLock { state in
      state.rows += rows
      state.parts.append(rows.count)
    }
  }

  func finishImport(_ id: BatchID, by principal: Principal) async throws -> Batch {
    try batches.state.withLock { state in
      guard let index = state.batches.firstIndex(where: { $0.id == id }) else { throw StoreError.notFound("batch") }
      state.batches[index].state = .running
      state.batches[index].total = state.rows.count
      return state.batches[index]
    }
  }

  func abandonImport(_ id: BatchID, by principal: Principal) async throws {
    batches.state.withLock { state in
      state.abandoned.append(id)
      state.batches.removeAll { $0.id == id }
    }
  }

  func claimKey(
    _ key: String, requestHash: [UInt8], for duration: Duration, by principal: Principal
  ) async throws -> KeyClaim {
    batches.state.withLock { state in
      let key = "\(principal.organizationID) \(key)"
      guard let known = state.answers[key] else {
        state.answers[key] = (requestHash, nil)
        return .new
      }
      if known.hash != requestHash { return .other }
      return known.answer.map { .answered($0) } ?? .busy
    }
  }

  func keepAnswer(_ answer: KeptAnswer, under key: String, by principal: Principal) async throws {
    batches.state.withLock { $0.answers["\(principal.organizationID) \(key)"]?.answer = answer }
  }

  func releaseKey(_ key: String, by principal: Principal) async throws {
    batches.state.withLock { $0.answers["\(principal.organizationID) \(key)"] = nil }
  }
}
