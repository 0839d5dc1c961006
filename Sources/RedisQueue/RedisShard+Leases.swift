import PostriderCore

extension RedisShard {
  /// Takes up to `limit` jobs of this shard for a worker.
  func claim(limit: Int, worker: String, lease: Duration) async throws(JobQueueError) -> Claim {
    let trusted = Self.trustedUntil(lease)
    let (reply, epoch) = try await call(.claim, [String(limit), worker, String(lease.milliseconds)])
    guard let values = reply.array, values.count % 6 == 1, let reclaimed = values[0].integer else {
      throw Self.unexpected(reply, from: .claim)
    }
    var leases: [Lease] = []
    leases.reserveCapacity(values.count / 6)
    for at in stride(from: 1, to: values.count, by: 6) {
      guard let job = values[at].string.flatMap({ JobID($0) }),
        let profile = values[at + 1].string.flatMap({ ProfileID($0) }),
        let jobClass = values[at + 2].integer.flatMap({ JobClass(rawValue: Int($0)) }),
        let due = values[at + 3].string.flatMap({ Double($0) }), let counter = values[at + 4].integer,
        let reclaims = values[at + 5].integer
      else { throw Self.unexpected(reply, from: .claim) }
      leases.append(
        Lease(
          job: job, profile: profile, jobClass: jobClass, fence: fence(counter, in: epoch), reclaims: Int(reclaims),
          dueMilliseconds: Int64(due), trustedUntil: trusted))
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

  /// Counted from before the request leaves, less a margin for two clocks that do not run alike and for closing sockets:
  /// a tenth of the lease, 1 s at most.
  private static func trustedUntil(_ lease: Duration) -> ContinuousClock.Instant {
    ContinuousClock.now + lease - min(lease / 10, .seconds(1))
  }
}
