import Hummingbird
import PostriderCore

extension APIRoutes {
  struct QueueAnswer: Codable {
    let queue: QueueStatistics
    let schedule: ScheduleStatistics
    let jobsPerSecond: Double?
    let meanSessionSeconds: Double?
    /// The organization's poison jobs.
    let setAside: Int
  }

  struct InspectAnswer: Codable {
    let jobs: [JobLocation]
  }

  @Sendable static func showQueue(_ services: APIServices, _ call: APICall) async throws -> Response {
    async let schedule = services.schedules.value(for: call.principal)
    async let setAside = services.setAside.value(for: call.principal)
    let reading = try await services.statistics.reading()
    return try call.answer(
      QueueAnswer(
        queue: reading.statistics, schedule: try await schedule, jobsPerSecond: reading.jobsPerSecond,
        meanSessionSeconds: reading.meanSessionSeconds, setAside: try await setAside.total))
  }

  /// A poison job leaves the queue once PostgreSQL knows of it; people look for it here all the same.
  private static func mark(_ setAside: [SetAsideJob], in locations: [JobLocation]) -> [JobLocation] {
    let byJob = Dictionary(setAside.map { ($0.job, $0) }, uniquingKeysWith: { first, _ in first })
    return locations.map { location in
      guard location.state == "absent", let job = byJob[location.job] else { return location }
      return JobLocation(job: job.job, state: "poisoned", profileID: job.profileID, worker: job.worker)
    }
  }

  @Sendable static func inspectQueue(_ services: APIServices, _ call: APICall) async throws -> Response {
    let id: MailboxID? = try call.readQuery { query in
      let id: MailboxID? = query.identifier("mailbox")
      if call.query["mailbox"] == nil { query.problems.add("?mailbox", "required", "is required") }
      return id
    }
    guard let id else { throw CancellationError() }
    // The mailbox is read first: the queue does not know whose it is.
    let mailbox = try await services.store.mailbox(id, for: call.principal)
    let ids = JobKind.allCases.flatMap { JobID.all(of: id, $0) }
    guard let profile = mailbox.profileID else {
      return try call.answer(
        InspectAnswer(jobs: ids.filter { $0.lane == 0 }.map { JobLocation(job: $0.description, state: "absent") }))
    }
    let jobs = ids.map { Job(id: $0, profile: profile, jobClass: $0.kind.usualClass, dueMilliseconds: 0) }
    async let setAside = services.setAside.value(for: call.principal).items
    // Lanes beside the first are there only while there is much to send.
    let found = try await services.queue.inspect(jobs).filter {
      $0.state != "absent" || JobID($0.job).map { $0.lane == 0 } ?? true
    }
    return try call.answer(InspectAnswer(jobs: Self.mark(try await setAside, in: found)))
  }
}

extension JobKind {
  fileprivate var usualClass: JobClass {
    switch self {
    case .poll: .poll
    case .send: .send
    case .test: .interactive
    }
  }
}
