import PostriderCore

extension RedisShard {
  /// Takes up to `limit` jobs of this shard for a worker.
  func claim(limit: Int, worker: String, lease: Duration) async throws(JobQueueError) -> Claim {
    let trusted = Self.trustedUntil(lease)
    let (reply, epoch) = try await call(.claim, [String(limit), worker, String(lease.milliseconds)])
    guard let values = reply.array, values.count >= 3, let reclaimed = values[0].integer,
      let first = values[1].integer, let counted = values[2].array, let reclaims = Self.pairs(counted)
    else { throw Self.unexpected(reply, from: .claim) }
    var leases: [Lease] = []
    leases.reserveCapacity(values.count / 2)
    var at = 3
    while at < values.count {
      guard at + 2 < values.count, let profile = values[at].string.flatMap({ ProfileID($0) }),
        let jobClass = values[at + 1].integer.flatMap({ JobClass(rawValue: Int($0)) }),
        let count = values[at + 2].integer.map({ Int($0) }), count > 0, at + 2 + 2 * count < values.count
      else { throw Self.unexpected(reply, from: .claim) }
      at += 3
      for _ in 0..<count {
        guard let job = values[at].string.flatMap({ JobID($0) }),
          let due = values[at + 1].string.flatMap({ Double($0) })
        else { throw Self.unexpected(reply, from: .claim) }
        leases.append(
          Lease(
            job: job, profile: profile, jobClass: jobClass, fence: fence(first + Int64(leases.count), in: epoch),
            reclaims: Int(reclaims[Int64(leases.count + 1)] ?? 0), dueMilliseconds: Int64(due), trustedUntil: trusted))
        at += 2
      }
    }
    return Claim(leases: leases, reclaimed: Int(reclaimed))
  }

  /// Extends leases of this shard. Returns the extended ones.
  func renew(_ leases: [Lease], lease: Duration) async throws(JobQueueError) -> [Lease] {
    var renewed: [Lease] = []
    for part in leases.parts(of: maximumBatch) {
      let trusted = Self.trustedUntil(lease)
      let answers = try await answers(.renew, [String(lease.milliseconds)], for: part)
      for (lease, extended) in zip(part, answers) where extended {
        renewed.append(
          Lease(
            job: lease.job, profile: lease.profile, jobClass: lease.jobClass, fence: lease.fence,
            reclaims: lease.reclaims, dueMilliseconds: lease.dueMilliseconds, trustedUntil: trusted))
      }
    }
    return renewed
  }

  /// Ends leases of this shard with `complete` or `giveBack`.
  func end(_ leases: [Lease], _ script: RedisScript) async throws(JobQueueError) -> [LeaseEnd] {
    var ends: [LeaseEnd] = []
    for part in leases.parts(of: maximumBatch) {
      ends += try await answers(script, [], for: part).map { $0 ? .ended : .lost }
    }
    return ends
  }

  /// Asks the script about each lease; one of another epoch than the present is lost without asking.
  private func answers(
    _ script: RedisScript, _ head: [String], for leases: ArraySlice<Lease>
  ) async throws(JobQueueError) -> [Bool] {
    let epoch = try await workingEpoch()
    var arguments = head
    for lease in leases where lease.fence.epoch == epoch {
      arguments += [lease.job.description, String(counter(of: lease.fence))]
    }
    // Asked even when no lease is of this epoch, as the server may have lost it.
    let reply = try await call(script, arguments, epoch: epoch)
    guard let values = reply.array, values.count == (arguments.count - head.count) / 2 else {
      throw Self.unexpected(reply, from: script)
    }
    var remaining = values[...]
    return leases.map { lease in lease.fence.epoch == epoch && remaining.popFirst() == .integer(1) }
  }

  /// Numbers that belong together in twos.
  private static func pairs(_ values: [RedisValue]) -> [Int64: Int64]? {
    var pairs: [Int64: Int64] = [:]
    for at in stride(from: 0, to: values.count, by: 2) {
      guard at + 1 < values.count, let key = values[at].integer, let value = values[at + 1].integer else { return nil }
      pairs[key] = value
    }
    return pairs
  }

  /// Counted from before the request leaves, less a margin for two clocks that do not run alike and for closing sockets:
  /// a tenth of the lease, 1 s at most.
  private static func trustedUntil(_ lease: Duration) -> ContinuousClock.Instant {
    ContinuousClock.now + lease - min(lease / 10, .seconds(1))
  }
}
