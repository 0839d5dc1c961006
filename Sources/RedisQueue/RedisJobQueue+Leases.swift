import PostriderCore

extension RedisJobQueue {
  /// The most jobs that one claim takes.
  public static var maximumClaim: Int { 256 }

  /// Takes up to `limit` jobs for this worker, at most ``maximumClaim``.
  public func claim(limit: Int, worker: String) async throws -> Claim {
    guard limit > 0 else { return Claim(leases: []) }
    wakeups.claiming()
    let trusted = trustedUntil()
    let arguments = [String(min(limit, Self.maximumClaim)), worker, String(leaseDuration.milliseconds)]
    let (reply, epoch) = try await call(.claim, arguments)
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
          job: job, profile: profile, jobClass: jobClass, fence: Fence(epoch << 32 | counter), reclaims: Int(reclaims),
          dueMilliseconds: Int64(due), trustedUntil: trusted))
    }
    return Claim(leases: leases, reclaimed: Int(reclaimed))
  }

  /// Extends leases. Returns the extended ones.
  public func renew(_ leases: [Lease]) async throws -> [Lease] {
    var renewed: [Lease] = []
    for part in leases.parts(of: maximumBatch) {
      let trusted = trustedUntil()
      let answers = try await answers(.renew, [String(leaseDuration.milliseconds)], for: part)
      for (lease, extended) in zip(part, answers) where extended {
        renewed.append(
          Lease(
            job: lease.job, profile: lease.profile, jobClass: lease.jobClass, fence: lease.fence,
            reclaims: lease.reclaims, dueMilliseconds: lease.dueMilliseconds, trustedUntil: trusted))
      }
    }
    return renewed
  }

  /// Ends leases whose outcome is committed.
  @discardableResult
  public func complete(_ leases: [Lease]) async throws -> [LeaseEnd] { try await end(leases, .complete) }

  /// Ends leases whose work was not done; the jobs are ready again, uncounted.
  @discardableResult
  public func giveBack(_ leases: [Lease]) async throws -> [LeaseEnd] { try await end(leases, .giveBack) }

  private func end(_ leases: [Lease], _ script: RedisScript) async throws(JobQueueError) -> [LeaseEnd] {
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
    let session = try await link.session()
    let epoch = try await workingEpoch(in: session)
    var arguments = head
    for lease in leases where lease.fence.epoch == epoch {
      arguments += [lease.job.description, String(lease.fence.value & 0xFFFF_FFFF)]
    }
    // Asked even when no lease is of this epoch, as the server may have lost it.
    let reply = try await call(script, arguments, epoch: epoch, in: session)
    guard let values = reply.array, values.count == (arguments.count - head.count) / 2 else {
      throw Self.unexpected(reply, from: script)
    }
    var remaining = values[...]
    return leases.map { lease in lease.fence.epoch == epoch && remaining.popFirst() == .integer(1) }
  }

  /// Counted from before the request leaves, less a margin for two clocks that do not run alike and for closing sockets:
  /// a tenth of the lease, 1 s at most.
  private func trustedUntil() -> ContinuousClock.Instant {
    ContinuousClock.now + leaseDuration - min(leaseDuration / 10, .seconds(1))
  }
}
