import PostriderCore

extension RedisShard {
  /// Opens an epoch, if it is greater than the present one.
  ///
  /// - Throws: ``JobQueueError/misconfigured(reason:)`` when the queue has another number of shards; nothing changes then.
  func open(epoch: Int64, delay: Duration) async throws(JobQueueError) {
    let arguments = [String(max(0, delay.milliseconds)), String(count), String(RedisLayout.version)]
    let (reply, session) = try await evaluate(.open, epoch: epoch, arguments)
    guard case .array(let held) = reply, held.count == 4, let opened = held[0].integer else {
      throw Self.unexpected(reply, from: .open)
    }
    try check(shards: held[2])
    // An equal epoch of another server stays lost, and so does a newer one of another layout.
    if held[1].string == session.server.runID, RedisLayout.number(held[3]) == RedisLayout.version {
      epochs.learn(opened)
    }
  }

  /// Walks over the keys in small steps and unlinks what belongs to epochs before the present one.
  func removeOldEpochs() async throws {
    var cursor = "0"
    repeat {
      let connection = try await session().connection
      let scan = ["SCAN", cursor, "MATCH", prefix + "*", "COUNT", "500"]
      let reply = try await connection.command(scan)
      guard let current = epochs.current, let page = reply.array, page.count == 2, let next = page[0].string else {
        return
      }
      cursor = next
      let old = (page[1].array ?? []).compactMap(\.string).filter { key in
        guard let epoch = Int64(key.dropFirst(prefix.utf8.count).prefix { $0 != ":" }) else { return false }
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
