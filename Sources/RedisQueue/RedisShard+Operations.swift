import PostriderCore

extension RedisShard {
  /// How long a worker counts after it announced itself.
  private static let workerLife: Duration = .seconds(15)

  /// Keeps jobs of these profiles' directions waiting; all of them are this shard's.
  func hold(_ holds: [LaneHold]) async throws(JobQueueError) {
    for part in holds.parts(of: 200) {
      var arguments: [String] = []
      for hold in part {
        // A word: it is kept between colons.
        let reason = hold.reason.filter { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-") }
        // A hold of a fraction of a millisecond still is one.
        let milliseconds = hold.duration > .zero ? max(1, hold.duration.milliseconds) : 0
        arguments += [
          hold.profile.description, hold.direction == .incoming ? "i" : "o", String(milliseconds),
          reason.isEmpty ? "held" : reason,
        ]
      }
      _ = try await call(.hold, arguments)
    }
  }

  /// Says that a worker lives. Each shard knows every worker.
  func announce(worker: String, slots: Int) async throws(JobQueueError) {
    _ = try await call(.announce, [worker, String(max(0, slots)), String(Self.workerLife.milliseconds)])
  }

  /// Jobs of this shard that were set aside, oldest first.
  func poisoned(limit: Int) async throws(JobQueueError) -> [PoisonedJob] {
    guard limit > 0 else { return [] }
    let (reply, _) = try await call(.poisoned, [String(min(limit, 1_000))])
    guard let values = reply.array, values.count.isMultiple(of: 5) else {
      throw Self.unexpected(reply, from: .poisoned)
    }
    return try stride(from: 0, to: values.count, by: 5).map { at throws(JobQueueError) in
      guard let job = values[at].string, let profile = values[at + 1].string.flatMap({ ProfileID($0) }),
        let reclaims = values[at + 2].integer, let since = values[at + 3].integer, let worker = values[at + 4].string
      else { throw Self.unexpected(reply, from: .poisoned) }
      return PoisonedJob(
        job: job, profileID: profile, reclaims: Int(reclaims), worker: worker, sinceMilliseconds: since)
    }
  }

  /// Checks the invariants of about `limit` entries and mends what is broken; goes on from there at the next call.
  func repair(limit: Int, lease: Duration) async throws(JobQueueError) -> RepairReport {
    let (reply, _) = try await call(.repair, [String(min(max(1, limit), 10_000)), String(lease.milliseconds)])
    guard let values = reply.array, values.count >= 2, values.count.isMultiple(of: 2),
      let examined = values[0].integer, let isComplete = values[1].integer
    else { throw Self.unexpected(reply, from: .repair) }
    var report = RepairReport(examined: Int(examined), isComplete: isComplete == 1)
    for at in stride(from: 2, to: values.count, by: 2) {
      guard let rule = values[at].string, let count = values[at + 1].integer else {
        throw Self.unexpected(reply, from: .repair)
      }
      report.mended[rule] = Int(count)
    }
    return report
  }
}
