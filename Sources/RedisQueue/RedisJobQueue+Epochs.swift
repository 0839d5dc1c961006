import PostriderCore

extension RedisJobQueue {
  /// The greatest epoch: fences are epoch · 2³² + counter in 63 bits.
  private static let greatestEpoch = Int64(Int32.max)

  /// Opens an epoch, if it is greater than the present one; an equal or older one changes nothing. Keys of older epochs
  /// are removed afterwards, in the background.
  public func open(epoch: Int64, delay: Duration) async throws {
    guard (1...Self.greatestEpoch).contains(epoch) else {
      throw JobQueueError.misconfigured(reason: "an epoch must be 1 to \(Self.greatestEpoch), not \(epoch)")
    }
    let session = try await link.session()
    let arguments = [String(epoch), session.server.runID, String(max(0, delay.milliseconds))]
    let reply = try await evaluate(.open, arguments, in: session)
    guard case .array(let held) = reply, held.count == 2, let opened = held[0].integer else {
      throw Self.unexpected(reply, from: .open)
    }
    guard held[1].string == session.server.runID else { return }
    epochs.learn(opened)
    sweep.yield()
  }

  /// The epoch the server holds, or `nil` when it was emptied or replaced.
  public func currentEpoch() async throws -> Int64? {
    try await currentEpoch(in: try await link.session())
  }

  func currentEpoch(in session: RedisSession) async throws(JobQueueError) -> Int64? {
    let reply = try await session.connection.command(["HMGET", shardPrefix + "epoch", "epoch", "run_id"])
    guard case .array(let held) = reply, held.count == 2, held[1].string == session.server.runID else { return nil }
    return held[0].integer
  }

  /// Walks over the keys in small steps and unlinks what belongs to epochs before the present one.
  func removeOldEpochs() async throws {
    var cursor = "0"
    repeat {
      let connection = try await link.session().connection
      let scan = ["SCAN", cursor, "MATCH", shardPrefix + "*", "COUNT", "500"]
      let reply = try await connection.command(scan)
      guard let current = epochs.current, let page = reply.array, page.count == 2, let next = page[0].string else {
        return
      }
      cursor = next
      let old = (page[1].array ?? []).compactMap(\.string).filter { key in
        guard let epoch = Int64(key.dropFirst(shardPrefix.utf8.count).prefix { $0 != ":" }) else { return false }
        return epoch < current
      }
      if !old.isEmpty { try await connection.command(["UNLINK"] + old) }
      // Leaves the server to others between two steps.
      try await Task.sleep(for: .milliseconds(5))
    } while cursor != "0"
  }
}

extension Duration {
  /// Whole milliseconds, rounded down.
  var milliseconds: Int64 { components.seconds * 1_000 + components.attoseconds / 1_000_000_000_000_000 }
}
