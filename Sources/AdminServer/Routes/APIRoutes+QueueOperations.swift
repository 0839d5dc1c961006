import Hummingbird
import PostriderCore

extension APIRoutes {
  // MARK: Profiles

  struct ProfilesAnswer: Codable {
    let profiles: [ProfileQueueView]
    /// Of how many.
    let total: Int
  }

  /// By what the list of profiles is sorted, highest first but for the name.
  enum QueueProfileOrder: String, CaseIterable {
    case due
    case ready
    case inUse = "in-use"
    case blocked
    case errors
    case name

    func isBefore(_ a: ProfileQueueView, _ b: ProfileQueueView) -> Bool {
      func key(_ view: ProfileQueueView) -> Double {
        switch self {
        case .due: Double(view.due)
        case .ready: Double(view.totalReady)
        case .inUse: Double(view.inUse)
        case .blocked: Double(view.totalBlocked)
        case .errors: view.errorRate ?? -1
        case .name: 0
        }
      }
      let (left, right) = (key(a), key(b))
      return left == right ? (a.name, a.profileID) < (b.name, b.profileID) : left > right
    }
  }

  /// The queue knows no organizations: only numbers of profiles that PostgreSQL shows the principal are handed out.
  @Sendable static func listQueueProfiles(_ services: APIServices, _ call: APICall) async throws -> Response {
    let (order, limit) = try call.readQuery { query in
      (query.choice("sort") ?? QueueProfileOrder.ready, query.integer("limit", in: 1...10_000) ?? 50)
    }
    async let numbers = services.queueProfiles.value()
    let own = try await services.activity.value(for: call.principal)
    let queue = try await numbers
    let views = own.activity.map { activity in
      ProfileQueueView(activity, queue: queue[activity.profileID], profile: own.profiles[activity.profileID])
    }
    let sorted = views.sorted(by: order.isBefore)
    return try call.answer(ProfilesAnswer(profiles: Array(sorted.prefix(limit)), total: views.count))
  }

  // MARK: Pauses

  private struct PauseRequest: Codable {
    let scope: String
    let id: Int64?

    func resolved() throws -> PauseScope {
      switch (scope, id) {
      case ("organization", nil): .organization
      case ("profile", let id?): .profile(ProfileID(id))
      case ("mailbox", let id?): .mailbox(MailboxID(id))
      case ("organization", _):
        throw Problem.invalid([FieldProblem("/id", "not-allowed", "must be left out for the organization")])
      default: throw Problem.invalid([FieldProblem("/id", "required", "is required: the \(scope)'s number")])
      }
    }
  }

  struct PauseAnswer: Codable {
    let scope: String
    let id: Int64?
    let paused: Bool
  }

  @Sendable static func listPauses(_ services: APIServices, _ call: APICall) async throws -> Response {
    let page = try call.readQuery { $0.page() }
    return try call.answer(try await services.store.pauses(page, for: call.principal))
  }

  @Sendable static func pause(_ services: APIServices, _ call: APICall) async throws -> Response {
    try await setPaused(true, services, call)
  }

  @Sendable static func resume(_ services: APIServices, _ call: APICall) async throws -> Response {
    try await setPaused(false, services, call)
  }

  private static func setPaused(_ paused: Bool, _ services: APIServices, _ call: APICall) async throws -> Response {
    let request = try call.decode(PauseRequest.self)
    let scope = try request.resolved()
    // Whoever looks after mailboxes may stop one; more than that stops other people's.
    if case .mailbox = scope {} else { try call.require(.manageQueue) }
    try await services.store.setPaused(paused, scope, by: call.principal)
    return try call.answer(PauseAnswer(scope: request.scope, id: request.id, paused: paused))
  }

  // MARK: Poison jobs

  private struct ReleaseRequest: Decodable {
    let jobs: [String]
  }

  struct ReleaseAnswer: Codable {
    let released: [String]
  }

  @Sendable static func listSetAsideJobs(_ services: APIServices, _ call: APICall) async throws -> Response {
    let page = try call.readQuery { $0.page() }
    return try call.answer(try await services.store.setAsideJobs(page, for: call.principal))
  }

  @Sendable static func releaseJobs(_ services: APIServices, _ call: APICall) async throws -> Response {
    var problems = FieldProblems()
    var jobs: [JobID] = []
    for (index, text) in try call.decode(ReleaseRequest.self).jobs.enumerated() {
      if let job = JobID(text) {
        if !jobs.contains(job) { jobs.append(job) }
      } else {
        problems.add("/jobs/\(index)", "not-a-job", "must be a job such as 4711p: mailbox, then p, s or t")
      }
    }
    try problems.throwIfAny()
    let released = try await services.store.releaseJobs(jobs, by: call.principal)
    return try call.answer(ReleaseAnswer(released: released.map(\.description)))
  }

  // MARK: Repair and scale

  @Sendable static func requestRepair(_ services: APIServices, _ call: APICall) async throws -> Response {
    let request = try await services.store.requestRepair(by: call.principal)
    return try call.answer(request, headers: [.location: "\(prefix)/queue/repairs/\(request.id)"])
  }

  @Sendable static func showRepair(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await services.store.repairRequest(try call.number(), for: call.principal))
  }

  @Sendable static func showScale(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(await services.statistics.scaleHint())
  }
}
