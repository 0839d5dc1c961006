import PostriderCore
import Synchronization

/// Commits what many tasks want written in groups: it writes at once when idle, and what arrives meanwhile is the next
/// batch. No timer.
final class GroupCommit<Item: Sendable, Answer: Sendable>: Sendable {
  /// Writes a batch in one transaction; one answer for each item, in order.
  typealias Write = @Sendable ([Item]) async throws -> [Answer]

  private struct Waiting {
    var item: Item
    var continuation: CheckedContinuation<Answer, any Error>
  }

  private struct State {
    var queue: [Waiting] = []
    var writers = 0
  }

  /// Items that may wait; a worker has far fewer sessions.
  private static var queueLimit: Int { 100_000 }

  private let batchLimit: Int
  private let writers: Int
  private let apart: @Sendable (Item) -> MailboxID?
  private let state = Mutex(State())

  /// Makes one.
  ///
  /// - Parameters:
  ///   - batchLimit: items in one transaction at most.
  ///   - writers: transactions at once at most.
  ///   - apart: items of the same mailbox get transactions of their own, one after the other; `nil` for those that may
  ///     stand together.
  init(batchLimit: Int, writers: Int = 1, apart: @escaping @Sendable (Item) -> MailboxID?) {
    self.batchLimit = batchLimit
    self.writers = writers
    self.apart = apart
  }

  /// Writes an item together with others that wait. Returns when it is durable.
  func run(_ item: Item, _ write: @escaping Write) async throws -> Answer {
    try await withCheckedThrowingContinuation { continuation in
      let (accepted, starts) = state.withLock { state in
        if state.queue.count >= Self.queueLimit { return (false, false) }
        state.queue.append(Waiting(item: item, continuation: continuation))
        let starts = state.writers < writers
        if starts { state.writers += 1 }
        return (true, starts)
      }
      if !accepted { continuation.resume(throwing: StoreError.unavailable(reason: "too many writes wait")) }
      // A task of its own: a batch holds many sessions' writes and must not end with the session that began it.
      if starts { Task { await drain(write) } }
    }
  }

  private func drain(_ write: Write) async {
    while let batch = nextBatch() { await self.write(batch[...], write) }
  }

  /// What waits, in order.
  private func nextBatch() -> [Waiting]? {
    state.withLock { state in
      if state.queue.isEmpty {
        state.writers -= 1
        return nil
      }
      var batch: [Waiting] = []
      var rest: [Waiting] = []
      var mailboxes: Set<MailboxID> = []
      for waiting in state.queue {
        if batch.count < batchLimit, apart(waiting.item).map({ mailboxes.insert($0).inserted }) ?? true {
          batch.append(waiting)
        } else {
          rest.append(waiting)
        }
      }
      state.queue = rest
      return batch
    }
  }

  /// Writes a batch; one that PostgreSQL refuses is split until the bad item stands alone, and only that one throws.
  private func write(_ batch: ArraySlice<Waiting>, _ write: Write) async {
    do {
      let answers = try await write(batch.map(\.item))
      for (waiting, answer) in zip(batch, answers) { waiting.continuation.resume(returning: answer) }
    } catch StoreError.unavailable(let reason) {
      for waiting in batch { waiting.continuation.resume(throwing: StoreError.unavailable(reason: reason)) }
    } catch {
      if batch.count == 1 {
        for waiting in batch { waiting.continuation.resume(throwing: error) }
      } else {
        let middle = batch.startIndex + batch.count / 2
        await self.write(batch[..<middle], write)
        await self.write(batch[middle...], write)
      }
    }
  }
}
