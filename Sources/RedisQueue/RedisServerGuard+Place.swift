import PostriderCore

extension RedisServerGuard {
  /// Where the keys of one host lie.
  struct Place: Sendable {
    let queue: RedisJobQueue
    let number: Int
    let keyPrefix: String

    /// `<prefix>:<word>:{<shard>}`, and the name behind it.
    func key(_ word: String, _ name: String?) -> String {
      "\(keyPrefix):\(word):{\(number)}" + (name.map { ":" + $0 } ?? "")
    }

    func evaluate(
      _ script: RedisScript, keys: [String], _ arguments: [String]
    ) async throws(JobQueueError) -> [RedisValue] {
      let reply = try await queue.evaluate(script, keys: keys, arguments, in: try await queue.link.session())
      guard let values = reply.array else {
        if let number = reply.integer { return [.integer(number)] }
        throw RedisJobQueue.unexpected(reply, from: script)
      }
      return values
    }
  }

  /// One for each shard.
  var places: [Place] { [Place(queue: queue, number: 0, keyPrefix: queue.keyPrefix)] }

  func evaluate(
    _ script: RedisScript, _ server: MailServer, _ arguments: [String]
  ) async throws(JobQueueError) -> [RedisValue] {
    let place = place(of: server.host)
    return try await place.evaluate(
      script, keys: [place.key("breaker", server.description), place.key("breakers", nil)], arguments)
  }

  func evaluate(
    _ script: RedisScript, _ login: LoginPlace, _ arguments: [String]
  ) async throws(JobQueueError) -> [RedisValue] {
    let place = place(of: login.host)
    let name = place.key("login", "\(login.host)|\(login.egress)")
    return try await place.evaluate(
      script, keys: [name + ":failed", name + ":taken", name + ":single"], arguments)
  }

  /// FNV-1a of the host: the same in every process, unlike `Hasher`.
  private func place(of host: String) -> Place {
    let places = places
    if places.count == 1 { return places[0] }
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for byte in host.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
    return places[Int(hash % UInt64(places.count))]
  }
}
