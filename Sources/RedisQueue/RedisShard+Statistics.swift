import PostriderCore

/// One profile's numbers as the shard's script gives them.
struct ShardProfile: Sendable {
  var statistics: ProfileQueueStatistics
  /// The oldest due time by class label.
  var oldest: [String: Int64] = [:]
}

extension RedisShard {
  /// About how many profiles one script call looks at; Redis runs nothing else meanwhile.
  private static let profilesPerCall = 100

  /// The numbers of this shard. Put together from several calls, so that none takes long: what moves meanwhile may be
  /// counted twice or not at all.
  func statistics() async throws(JobQueueError) -> QueueStatistics {
    let profiles = try await profiles()
    let (reply, epoch) = try await call(.stats, [])
    guard let numbers = reply.array?.compactMap(\.integer), numbers.count == 7 else {
      throw Self.unexpected(reply, from: .stats)
    }
    var statistics = QueueStatistics(
      ready: Dictionary(uniqueKeysWithValues: JobClass.allCases.map { ($0.label, 0) }), inFlight: Int(numbers[1]),
      blocked: ["limit": 0, "busy-mailbox": 0, "paused": 0], reclaimed: Int(numbers[2]), finished: Int(numbers[3]),
      poisoned: Int(numbers[4]), workers: Int(numbers[5]), workerSlots: Int(numbers[6]), epoch: epoch,
      serverMilliseconds: numbers[0])
    for profile in profiles {
      statistics.ready.merge(profile.statistics.ready, uniquingKeysWith: +)
      statistics.blocked.merge(profile.statistics.blocked, uniquingKeysWith: +)
      statistics.oldestDueMilliseconds.merge(profile.oldest, uniquingKeysWith: min)
    }
    return statistics
  }

  /// The numbers of the profiles with work, in no order.
  func profiles() async throws(JobQueueError) -> [ShardProfile] {
    var found: [ProfileID: ShardProfile] = [:]
    var cursor = "0"
    repeat {
      let (reply, _) = try await call(.profiles, [cursor, String(Self.profilesPerCall)])
      guard let page = reply.array, let next = page.first?.string else { throw Self.unexpected(reply, from: .profiles) }
      cursor = next
      for value in page.dropFirst() {
        guard let profile = Self.profile(value) else { throw Self.unexpected(reply, from: .profiles) }
        // The walk may come by twice.
        found[profile.statistics.profileID] = profile
      }
    } while cursor != "0"
    return Array(found.values)
  }

  private static func profile(_ value: RedisValue) -> ShardProfile? {
    guard let fields = value.array, fields.count >= 14, let id = fields[0].string.flatMap({ ProfileID($0) }),
      let limit = fields[1].integer, let perProfile = fields[2].integer, let leased = fields[3].integer,
      let used = fields[4].integer
    else { return nil }
    var profile = ShardProfile(
      statistics: ProfileQueueStatistics(
        profileID: id, inFlight: Int(leased), slotsInUse: Int(used), limit: Int(limit),
        limitIsPerProfile: perProfile == 1, heldUntilMilliseconds: fields[5].integer))
    for jobClass in JobClass.allCases {
      let at = 6 + 2 * jobClass.rawValue
      profile.statistics.ready[jobClass.label] = Int(fields[at].integer ?? 0)
      profile.oldest[jobClass.label] = fields[at + 1].integer
    }
    profile.statistics.oldestDueMilliseconds = profile.oldest.values.min()
    for at in stride(from: 14, to: fields.count - 1, by: 2) {
      guard let reason = fields[at].string, let count = fields[at + 1].integer else { return nil }
      profile.statistics.blocked[reason] = Int(count)
    }
    return profile
  }

  /// Where jobs of this shard are, in their order, and what the shard knows of the workers.
  func inspect(_ jobs: [Job]) async throws(JobQueueError) -> [(JobLocation, ShardLoad)] {
    var locations: [(JobLocation, ShardLoad)] = []
    for part in jobs.parts(of: 100) {
      let (reply, epoch) = try await call(.inspect, part.flatMap { [$0.id.description, $0.profile.description] })
      guard let values = reply.array, values.count == part.count + 1,
        let load = values[0].array?.compactMap(\.integer), load.count == 3
      else { throw Self.unexpected(reply, from: .inspect) }
      for (job, value) in zip(part, values.dropFirst()) {
        guard let fields = value.array?.map({ $0.string ?? "" }), fields.count == 10 else {
          throw Self.unexpected(reply, from: .inspect)
        }
        let location = JobLocation(
          job: job.id.description, state: fields[0], profileID: ProfileID(fields[1]),
          jobClass: Int(fields[2]).flatMap { JobClass(rawValue: $0)?.label },
          worker: fields[3].isEmpty ? nil : fields[3], fence: Int64(fields[4]).map { fence($0, in: epoch) },
          leaseEndsMilliseconds: Int64(fields[5]), dueMilliseconds: Int64(fields[6]),
          blockedBy: fields[7].isEmpty ? nil : fields[7], blockedUntilMilliseconds: Int64(fields[8]),
          leasedSinceMilliseconds: Int64(fields[9]))
        locations.append(
          (location, ShardLoad(shard: number, workers: load[0], slots: load[1], leased: load[2])))
      }
    }
    return locations
  }

  /// The broken rules of this shard in words.
  func verify() async throws(JobQueueError) -> [String] {
    let (reply, _) = try await call(.verify, [])
    return (reply.array ?? []).compactMap(\.string)
  }
}

/// What a shard knows of the workers.
struct ShardLoad: Hashable, Sendable {
  var shard: Int
  var workers: Int64
  var slots: Int64
  var leased: Int64
}
