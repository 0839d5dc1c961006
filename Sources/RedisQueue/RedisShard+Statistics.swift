import PostriderCore

extension RedisShard {
  /// The numbers of this shard.
  func statistics() async throws(JobQueueError) -> QueueStatistics {
    let (reply, epoch) = try await call(.stats, [])
    guard let values = reply.array, values.count == 6 + 2 * JobClass.allCases.count else {
      throw Self.unexpected(reply, from: .stats)
    }
    let numbers = values.map { $0.integer ?? 0 }
    var statistics = QueueStatistics(
      inFlight: Int(numbers[1]),
      blocked: ["limit": Int(numbers[3]), "busy-mailbox": Int(numbers[4]), "paused": Int(numbers[5])],
      reclaimed: Int(numbers[2]), epoch: epoch, serverMilliseconds: numbers[0])
    for (index, jobClass) in JobClass.allCases.enumerated() {
      statistics.ready[jobClass.label] = Int(numbers[6 + 2 * index])
      statistics.oldestDueMilliseconds[jobClass.label] = values[7 + 2 * index].integer
    }
    return statistics
  }

  /// Where jobs of this shard are, in their order.
  func inspect(_ jobs: [Job]) async throws(JobQueueError) -> [JobLocation] {
    var locations: [JobLocation] = []
    for part in jobs.parts(of: 100) {
      let (reply, epoch) = try await call(.inspect, part.flatMap { [$0.id.description, $0.profile.description] })
      guard let values = reply.array, values.count == part.count else { throw Self.unexpected(reply, from: .inspect) }
      for (job, value) in zip(part, values) {
        guard let fields = value.array?.map({ $0.string ?? "" }), fields.count == 8 else {
          throw Self.unexpected(reply, from: .inspect)
        }
        locations.append(
          JobLocation(
            job: job.id.description, state: fields[0], profileID: ProfileID(fields[1]),
            jobClass: Int(fields[2]).flatMap { JobClass(rawValue: $0)?.label },
            worker: fields[3].isEmpty ? nil : fields[3], fence: Int64(fields[4]).map { fence($0, in: epoch) },
            leaseEndsMilliseconds: Int64(fields[5]), dueMilliseconds: Int64(fields[6]),
            blockedBy: fields[7].isEmpty ? nil : fields[7]))
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
