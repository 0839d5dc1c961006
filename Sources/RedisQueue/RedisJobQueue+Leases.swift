import PostriderCore

extension RedisJobQueue {
  /// The most jobs that one claim takes.
  public static var maximumClaim: Int { 256 }

  /// Takes up to `limit` jobs for this worker, at most ``maximumClaim``.
  ///
  /// The shards are visited until the places are filled. Each claim begins at the next shard, every second one at those
  /// that said that something became ready. A shard that cannot be reached is passed over as long as another answers.
  public func claim(limit: Int, worker: String) async throws -> Claim {
    guard limit > 0 else { return Claim(leases: []) }
    if let error = rotation.takeLoss() { throw error }
    wakeups.claiming()
    let places = min(limit, Self.maximumClaim)
    var claim = Claim(leases: [])
    var troubles: [JobQueueError] = []
    for number in rotation.order(announced: wakeups.announced()) where claim.leases.count < places {
      wakeups.visiting(number)
      do throws(JobQueueError) {
        let part = try await shards[number].claim(
          limit: places - claim.leases.count, worker: worker, lease: leaseDuration)
        claim.leases += part.leases
        claim.reclaimed += part.reclaimed
      } catch {
        troubles.append(error)
      }
    }
    guard let trouble = troubles.max(by: { $0.severity < $1.severity }) else { return claim }
    if trouble.concernsEveryShard {
      // What was granted on the way must not be forgotten, so the next claim says it.
      if claim.leases.isEmpty { throw trouble }
      rotation.keep(loss: trouble)
    } else if troubles.count == shards.count {
      throw trouble
    }
    return claim
  }

  /// Extends leases. Returns the extended ones, and as they are those of shards that cannot be reached while others can:
  /// they are not lost before their time.
  public func renew(_ leases: [Lease]) async throws -> [Lease] {
    let parts = parts(leases, by: \.profile)
    let results = await results(parts) { (shard, part) throws(JobQueueError) in
      try await shard.renew(part, lease: self.leaseDuration)
    }
    if let trouble = Self.worst(results), trouble.concernsEveryShard || results.count == 1 { throw trouble }
    var renewed: [Lease] = []
    var failures = 0
    for (part, result) in zip(parts, results) {
      switch result {
      case .success(let leases): renewed += leases
      case .failure:
        renewed += part.elements
        failures += 1
      }
    }
    if failures == results.count, let trouble = Self.worst(results) { throw trouble }
    return renewed
  }

  /// Ends leases whose outcome is committed.
  @discardableResult
  public func complete(_ leases: [Lease]) async throws -> [LeaseEnd] {
    try await inOrder(leases, by: \.profile) { (shard, part) throws(JobQueueError) in
      try await shard.end(part, .complete)
    }
  }

  /// Ends leases whose work was not done; the jobs are ready again, uncounted.
  @discardableResult
  public func giveBack(_ leases: [Lease]) async throws -> [LeaseEnd] {
    try await inOrder(leases, by: \.profile) { (shard, part) throws(JobQueueError) in
      try await shard.end(part, .giveBack)
    }
  }
}
