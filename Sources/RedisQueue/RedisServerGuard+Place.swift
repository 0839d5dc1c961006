import PostriderCore

extension RedisServerGuard {
  /// The keys of one host: they carry the hash tag of a shard, and so lie where that shard lies.
  struct Place: Sendable {
    let shard: RedisShard

    /// `<prefix>:<word>:{<shard>}`, and the name behind it.
    func key(_ word: String, _ name: String?) -> String {
      let tag = "{\(shard.number)}:"
      return "\(shard.prefix.dropLast(tag.utf8.count))\(word):\(tag.dropLast())" + (name.map { ":" + $0 } ?? "")
    }

    func evaluate(
      _ script: RedisScript, keys: [String], _ arguments: [String]
    ) async throws(JobQueueError) -> [RedisValue] {
      let reply = try await shard.evaluate(script, keys: keys, arguments)
      guard let values = reply.array else {
        if let number = reply.integer { return [.integer(number)] }
        throw RedisShard.unexpected(reply, from: script)
      }
      return values
    }
  }

  /// One for each shard.
  var places: [Place] { queue.shards.map(Place.init(shard:)) }

  func evaluate(
    _ script: RedisScript, _ server: MailServer, _ arguments: [String]
  ) async throws(JobQueueError) -> [RedisValue] {
    let place = place(of: server.host)
    return try await place.evaluate(
      script, keys: [place.key(keyWord, server.description), place.key(keyWord + "s", nil)], arguments)
  }

  func evaluate(
    _ script: RedisScript, _ login: LoginPlace, _ lane: ServerLane?, _ arguments: [String]
  ) async throws(JobQueueError) -> [RedisValue] {
    let place = place(of: login.host)
    let refused = lane.map { [place.key("refused", $0.written)] } ?? []
    if script == .loginRefused { return try await place.evaluate(script, keys: refused, arguments) }
    let name = place.key("login", "\(login.host)|\(login.egress)")
    return try await place.evaluate(
      script, keys: [name + ":failed", name + ":taken", name + ":single"] + refused, arguments)
  }

  /// By FNV-1a of the host: the same in every process, unlike `Hasher`.
  private func place(of host: String) -> Place {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for byte in host.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
    return Place(shard: queue.shards[Int(hash % UInt64(queue.shards.count))])
  }
}
