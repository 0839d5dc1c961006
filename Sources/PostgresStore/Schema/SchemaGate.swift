import PostriderCore
import Synchronization

/// Keeps a program from working with a schema that it does not fit.
///
/// The schema may be moved on while processes run, so it is looked at again and again; between two looks the last answer
/// holds. While PostgreSQL cannot be asked the gate stays as it is: whoever needs the database finds that out.
final class SchemaGate: Sendable {
  private struct State {
    var refusal: StoreError?
    var looked: ContinuousClock.Instant?
    var isLooking = false
  }

  private let state = Mutex(State())
  private let interval: Duration
  private let rule: SchemaRule
  private let look: @Sendable () async throws -> (version: Int, worksWith: Int)

  /// - Parameters:
  ///   - interval: how long an answer holds.
  ///   - look: asks the database; see ``SchemaRule/question``.
  init(
    rule: SchemaRule = .program, interval: Duration = .seconds(5),
    look: @escaping @Sendable () async throws -> (version: Int, worksWith: Int)
  ) {
    self.rule = rule
    self.interval = interval
    self.look = look
  }

  /// Throws ``StoreError/schema(reason:)`` when the program must not work. Only the first call waits for an answer.
  func pass() async throws {
    let (isFirst, mustLook) = state.withLock { state in
      let isFirst = state.looked == nil
      let isOld = state.looked.map { .now - $0 >= interval } ?? true
      guard isOld, isFirst || !state.isLooking else { return (isFirst, false) }
      state.isLooking = true
      return (isFirst, true)
    }
    if isFirst {
      await refresh()
    } else if mustLook {
      Task { await refresh() }
    }
    if let refusal = state.withLock(\.refusal) { throw refusal }
  }

  /// Asks now and throws what is wrong, also that PostgreSQL cannot be asked.
  func check() async throws {
    do {
      let schema = try await look()
      let refusal = rule.refusal(version: schema.version, worksWith: schema.worksWith)
      answered(refusal)
      if let refusal { throw refusal }
    } catch StoreError.schema(let reason) {
      answered(.schema(reason: reason))
      throw StoreError.schema(reason: reason)
    }
  }

  private func refresh() async {
    do { try await check() } catch {
      // Kept in `refusal` when it is about the schema; when PostgreSQL is away, others say so.
      state.withLock { $0.isLooking = false }
    }
  }

  private func answered(_ refusal: StoreError?) {
    state.withLock { state in
      state.refusal = refusal
      state.looked = .now
      state.isLooking = false
    }
  }
}
