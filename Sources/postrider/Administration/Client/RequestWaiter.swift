import FoundationEssentials
import PostriderCore

/// Asks for tests or polls and waits until workers have done them.
struct RequestWaiter {
  /// What is asked for.
  enum Kind: String, Sendable {
    case test
    case poll

    func requested(_ mailbox: Mailbox) -> Int64 { self == .test ? mailbox.testsRequested : mailbox.pollsRequested }
    func served(_ mailbox: Mailbox) -> Int64 { self == .test ? mailbox.testsServed : mailbox.pollsServed }
    func lastRun(_ mailbox: Mailbox) -> RunID? { self == .test ? mailbox.lastTestRunID : mailbox.lastPollRunID }
  }

  /// What became of one mailbox's request.
  struct Outcome: Codable, Sendable {
    /// How it ended, if it did.
    enum State: String, Codable, Sendable {
      case passed
      case failed
      /// The API did not take the request.
      case refused
      /// Not done within the time; it goes on by itself.
      case waiting
    }
    var state: State
    /// Why, for `refused` and `waiting`.
    var message: String?
    var mailbox: Mailbox
    var run: RunRecord?
  }

  /// The JSON of the command.
  struct Answer: Codable, Sendable {
    var results: [Outcome]
  }

  let kind: Kind
  let session: Session
  /// Seconds.
  let timeout: Double
  /// Called for each outcome as it comes, with the bar to print through.
  let report: (Outcome, inout Progress) throws -> Void
  /// Seconds without any result after which the queue is looked at.
  static let patience = 10.0
  /// How many mailboxes are asked for at once.
  static let parallelism = 8

  /// Makes the requests, in portions the API takes.
  static func request(_ kind: Kind, _ mailboxes: [Mailbox], _ api: APIClient) async throws -> [BulkResult] {
    var results: [BulkResult] = []
    for start in stride(from: 0, to: mailboxes.count, by: BulkRequest.maximumIDs) {
      let ids = mailboxes[start..<min(start + BulkRequest.maximumIDs, mailboxes.count)].map(\.id)
      let answer: BulkAnswer = try await api.post("/mailboxes/\(kind.rawValue)", BulkRequest(ids: ids))
      results += answer.results
    }
    return results
  }

  /// Asks, waits and reports. Answers one outcome for each mailbox, in the order given.
  func run(_ mailboxes: [Mailbox]) async throws -> [Outcome] {
    var progress = Progress(total: mailboxes.count)
    defer { progress.clear() }
    let results = try await Self.request(kind, mailboxes, session.api)
    var outcomes: [MailboxID: Outcome] = [:]
    var pending: [MailboxID: Int64] = [:]
    for mailbox in mailboxes {
      if let refusal = results.first(where: { $0.id == mailbox.id && !$0.ok }) {
        let words = refusal.message ?? refusal.code ?? "the request was refused"
        try note(Outcome(state: .refused, message: words, mailbox: mailbox), &outcomes, &progress)
      } else {
        // Read after the request: its number is the one to wait for.
        let fresh: Mailbox = try await session.api.get("/mailboxes/\(mailbox.id)")
        pending[mailbox.id] = kind.requested(fresh)
      }
    }
    let addresses = Dictionary(mailboxes.map { ($0.id, $0.address) }, uniquingKeysWith: { first, _ in first })
    try await wait(&pending, addresses, &outcomes, &progress)
    for mailbox in mailboxes where outcomes[mailbox.id] == nil {
      let words = "not done after \(Words.duration(timeout)); it goes on by itself"
      try note(Outcome(state: .waiting, message: words, mailbox: mailbox), &outcomes, &progress)
    }
    return mailboxes.compactMap { outcomes[$0.id] }
  }

  private func wait(
    _ pending: inout [MailboxID: Int64], _ addresses: [MailboxID: String], _ outcomes: inout [MailboxID: Outcome],
    _ progress: inout Progress
  ) async throws {
    let clock = ContinuousClock()
    let start = clock.now
    var hasExplained = false
    var pause = 0.2
    while !pending.isEmpty {
      let before = pending.count
      for (id, mailbox) in try await current(Array(pending.keys)) {
        guard let target = pending[id], kind.served(mailbox) >= target else { continue }
        pending[id] = nil
        try note(try await outcome(of: mailbox), &outcomes, &progress)
      }
      guard let first = pending.keys.min() else { return }
      let elapsed = (clock.now - start) / Duration.seconds(1)
      if elapsed >= timeout { return }
      if !hasExplained && elapsed >= Self.patience && outcomes.values.allSatisfy({ $0.state == .refused }) {
        if let words = try await explanation(Array(pending.keys.sorted().prefix(5))) {
          progress.remark(words)
          hasExplained = true
        }
      }
      progress.wait(for: "waiting for \(addresses[first] ?? "\(first)")")
      // Quick while things happen, then slower; many mailboxes are asked for less often.
      pause = pending.count < before ? 0.2 : min(2, max(pause * 1.3, Double(pending.count) / 200))
      try await clock.sleep(for: .seconds(min(pause, timeout - elapsed)))
    }
  }

  private func current(_ ids: [MailboxID]) async throws -> [(MailboxID, Mailbox)] {
    let api = session.api
    return try await withThrowingTaskGroup(of: (MailboxID, Mailbox).self) { group in
      var rest = ids.makeIterator()
      var found: [(MailboxID, Mailbox)] = []
      func addNext() {
        guard let id = rest.next() else { return }
        group.addTask { (id, try await api.get("/mailboxes/\(id)")) }
      }
      for _ in 0..<Self.parallelism { addNext() }
      while let next = try await group.next() {
        found.append(next)
        addNext()
      }
      return found
    }
  }

  private func outcome(of mailbox: Mailbox) async throws -> Outcome {
    var run: RunRecord?
    if let id = kind.lastRun(mailbox) { run = try await session.api.get("/runs/\(id)") }
    let directions = kind == .test ? [mailbox.incoming, mailbox.outgoing] : [mailbox.incoming]
    let isFailure =
      run.map { $0.result != .success }
      ?? directions.contains { $0.method == .serverSideSync && $0.status == .failure }
    return Outcome(state: isFailure ? .failed : .passed, mailbox: mailbox, run: run)
  }

  private func note(
    _ outcome: Outcome, _ outcomes: inout [MailboxID: Outcome], _ progress: inout Progress
  ) throws {
    outcomes[outcome.mailbox.id] = outcome
    try report(outcome, &progress)
  }

  /// Why nothing happens, as far as the queue knows; `nil` when a worker is at it.
  func explanation(_ ids: [MailboxID]) async throws -> String? {
    var states: [JobLocation] = []
    for id in ids {
      let answer: InspectAnswer = try await session.api.get("/queue/inspect", [("mailbox", "\(id)")])
      states += answer.jobs.filter { JobID($0.job)?.kind.word == kind.rawValue }
    }
    if states.contains(where: { $0.state == "leased" }) { return nil }
    guard let waiting = states.first(where: { $0.state == "ready" || $0.state == "parked" }) else {
      return "the \(kind.rawValue) is not in the queue yet; is a scheduler running?"
    }
    let reason = waiting.blockedBy.map { " (\(Terminal.safe($0)))" } ?? ""
    return "no worker is free; the \(kind.rawValue) waits in the queue\(reason)"
  }
}
