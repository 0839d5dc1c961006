import PostriderCore

/// How many jobs or leases one script call takes; Redis runs nothing else meanwhile.
let maximumBatch = 500

extension RedisShard {
  /// Runs a script in the epoch that this process knows. Returns the reply and the epoch.
  func call(_ script: RedisScript, _ arguments: [String]) async throws(JobQueueError) -> (RedisValue, Int64) {
    let epoch = try await workingEpoch()
    let start = ContinuousClock.now
    defer { RedisCallTimers.shared.record(script, since: start) }
    return (try await call(script, arguments, epoch: epoch), epoch)
  }

  func call(_ script: RedisScript, _ arguments: [String], epoch: Int64) async throws(JobQueueError) -> RedisValue {
    let (reply, session) = try await evaluate(script, epoch: epoch, arguments)
    guard case .error(let text) = reply else { return reply }
    if text.contains("non local key") { throw await slotMoves(session, epoch) }
    if text.hasPrefix("EPOCHLOST other") { throw try await otherEpoch(text, epoch) }
    throw failure(text, of: script, in: epoch)
  }

  /// The epoch this process works in, read from the server when it knows none.
  func workingEpoch() async throws(JobQueueError) -> Int64 {
    if let epoch = epochs.current { return epoch }
    switch try await heldEpoch() {
    case .ours(let epoch):
      epochs.learn(epoch)
      return epoch
    case .none:
      throw .epochLost(reason: "the server holds no epoch of this start; it was emptied, restarted or replaced")
    case .otherLayout(let layout):
      throw .epochLost(
        reason: """
          the queue in Redis has layout \(layout), this program works with \(RedisLayout.version): the leading scheduler is \
          of another release. This process waits until a scheduler of its own release leads
          """)
    }
  }

  /// The epoch the server holds, or `nil` when it was emptied or replaced, or when the epoch has another layout: a leader
  /// then opens one of its own.
  ///
  /// - Throws: ``JobQueueError/misconfigured(reason:)`` when the queue has another number of shards.
  func currentEpoch() async throws(JobQueueError) -> Int64? {
    guard case .ours(let epoch) = try await heldEpoch() else { return nil }
    return epoch
  }

  private enum HeldEpoch {
    case none
    case ours(Int64)
    case otherLayout(Int64)
  }

  private func heldEpoch() async throws(JobQueueError) -> HeldEpoch {
    let (reply, session) = try await send { _ in ["HMGET", epochKey, "epoch", "run_id", "shards", "layout"] }
    if case .error(let text) = reply { throw RedisConnection.refusal(of: "HMGET", text) }
    guard case .array(let held) = reply, held.count == 4, held[1].string == session.server.runID,
      let epoch = held[0].integer
    else { return .none }
    let layout = RedisLayout.number(held[3])
    guard layout == RedisLayout.version else { return .otherLayout(layout) }
    try check(shards: held[2])
    return .ours(epoch)
  }

  /// The server holds another epoch than the caller worked in. A newer one is used from the next call on, which reads
  /// whether its layout is known.
  private func otherEpoch(_ text: String, _ epoch: Int64) async throws(JobQueueError) -> JobQueueError {
    let held = text.split(separator: " ").last.flatMap { Int64($0) } ?? 0
    if held > epoch {
      epochs.forget(epoch)
      _ = try await workingEpoch()
    }
    return .epochLost(reason: "the server holds epoch \(held), this process worked in \(epoch)")
  }

  /// Compares the number of shards that the queue was installed with.
  func check(shards: RedisValue) throws(JobQueueError) {
    guard let held = shards.integer, held != Int64(count) else { return }
    throw .misconfigured(
      reason: """
        the queue in Redis has \(held) shards and this process is set to \(count); set the same number in every process. \
        To change it, stop every process, remove the queue's keys (nothing is lost, they are filled again) and start
        """)
  }

  /// Runs a script over the shard's epoch key. It sees the epoch and the run id of the server it runs on before the
  /// arguments. Returns the reply and the connection it came from.
  func evaluate(
    _ script: RedisScript, epoch: Int64, _ arguments: [String]
  ) async throws(JobQueueError) -> (RedisValue, RedisSession) {
    try await send { session in
      session.evaluation(of: script, keys: [epochKey], [String(epoch), session.server.runID] + arguments)
    }
  }

  /// The same for a script without an epoch; its keys carry the shard's hash tag.
  func evaluate(
    _ script: RedisScript, keys: [String], _ arguments: [String]
  ) async throws(JobQueueError) -> RedisValue {
    try await send { $0.evaluation(of: script, keys: keys, arguments) }.0
  }

  /// The slot is being moved to another node of a Cluster, and the script met a key that is not there: it may have gone
  /// already, and the script has stopped in the middle. Nothing in the shard can be trusted any more, so its epoch ends;
  /// the next one is opened where the slot goes to, which takes it as soon as this node has none.
  private func slotMoves(_ session: RedisSession, _ epoch: Int64) async -> JobQueueError {
    epochs.forget(epoch)
    // Only here: the new node may hold the next epoch already. If it fails, the next call ends here too and tries again.
    _ = try? await session.connection.send(["DEL", epochKey])
    return .epochLost(reason: "the slot of shard \(number) is being moved to another node")
  }

  private func failure(_ text: String, of script: RedisScript, in epoch: Int64) -> JobQueueError {
    let words = text.split(separator: " ")
    switch words.first {
    case "NOTOPEN": return .notOpenYet(milliseconds: words.last.flatMap { Int($0) } ?? 0)
    case "EPOCHLOST":
      switch words.dropFirst().first {
      case "server":
        epochs.forget(epoch)
        return .epochLost(reason: "the server was restarted or is another one than the one opened")
      case "fences":
        epochs.forget(epoch)
        return .epochLost(reason: "the epoch's fences are used up; a new epoch is needed")
      default:
        epochs.forget(epoch)
        return .epochLost(reason: "the server holds no epoch; it was emptied")
      }
    default: return RedisConnection.refusal(of: "script \(script.rawValue)", text)
    }
  }

  static func unexpected(_ reply: RedisValue, from script: RedisScript) -> JobQueueError {
    if case .error(let text) = reply { return RedisConnection.refusal(of: "script \(script.rawValue)", text) }
    return .unavailable(reason: "the script \(script.rawValue) gave an unexpected reply")
  }
}

extension Array {
  /// Consecutive parts of at most `size` elements.
  func parts(of size: Int) -> [ArraySlice<Element>] {
    stride(from: 0, to: count, by: size).map { self[$0..<Swift.min($0 + size, count)] }
  }
}
