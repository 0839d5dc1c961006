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
    /// What it waits for, for `waiting`, where that is known.
    var waitsFor: WaitReason?
    var mailbox: Mailbox
    var run: RunRecord?
  }

  /// The JSON of the command.
  struct Answer: Codable, Sendable {
    var results: [Outcome]
    /// Why nothing happened for a while, in the order in which it was found out.
    var waits: [Wait]?
  }

  /// A reason and when it was found out.
  struct Wait: Codable, Sendable {
    /// Since the requests were made.
    var afterSeconds: Double
    var reason: WaitReason
  }

  let kind: Kind
  let session: Session
  /// Seconds.
  let timeout: Double
  /// Of tests: whether addresses are taken over from another organization.
  var takesOver = false
  /// Called for each outcome as it comes, with the bar to print through.
  let report: (Outcome, inout Progress) throws -> Void
  /// Seconds without a start after which the queue is looked at.
  var patience = 10.0
  /// Seconds between two looks at the queue.
  static let lookInterval = 2.0
  /// So many of the mailboxes that are waited for are looked up in the queue.
  static let looked = 5
  /// How many mailboxes are asked for at once.
  static let parallelism = 8

  /// Makes the requests, in portions the API takes.
  static func request(
    _ kind: Kind, _ mailboxes: [Mailbox], takesOver: Bool = false, _ api: APIClient
  ) async throws -> [BulkResult] {
    var results: [BulkResult] = []
    for start in stride(from: 0, to: mailboxes.count, by: BulkRequest.maximumIDs) {
      let ids = mailboxes[start..<min(start + BulkRequest.maximumIDs, mailboxes.count)].map(\.id)
      let answer: BulkAnswer = try await api.post(
        "/mailboxes/\(kind.rawValue)", BulkRequest(ids: ids, takeOver: takesOver ? true : nil))
      results += answer.results
    }
    return results
  }

  /// Asks, waits and reports. Answers one outcome for each mailbox, in the order given.
  func run(_ mailboxes: [Mailbox]) async throws -> Answer {
    var progress = Progress(total: mailboxes.count)
    defer { progress.clear() }
    let results = try await Self.request(kind, mailboxes, takesOver: takesOver, session.api)
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
    var waits = Waits()
    try await wait(&pending, mailboxes, &outcomes, &progress, &waits)
    for mailbox in mailboxes where outcomes[mailbox.id] == nil {
      var words = "not done after \(Words.duration(timeout)); it goes on by itself"
      if let reason = waits.now { words += " (\(reason.message))" }
      try note(
        Outcome(state: .waiting, message: words, waitsFor: waits.now, mailbox: mailbox), &outcomes, &progress)
    }
    return Answer(
      results: mailboxes.compactMap { outcomes[$0.id] }, waits: waits.all.isEmpty ? nil : waits.all)
  }

  /// What was found out about why nothing happens.
  private struct Waits {
    var now: WaitReason?
    var all: [Wait] = []
  }

  private func wait(
    _ pending: inout [MailboxID: Int64], _ mailboxes: [Mailbox], _ outcomes: inout [MailboxID: Outcome],
    _ progress: inout Progress, _ waits: inout Waits
  ) async throws {
    let clock = ContinuousClock()
    let start = clock.now
    // When the queue is looked at next: later, as long as results come.
    var nextLook = start + .seconds(patience)
    var pause = 0.2
    while !pending.isEmpty {
      let before = pending.count
      for (id, mailbox) in try await current(Array(pending.keys)) {
        guard let target = pending[id], kind.served(mailbox) >= target else { continue }
        pending[id] = nil
        try note(try await outcome(of: mailbox), &outcomes, &progress)
      }
      if pending.count < before {
        nextLook = max(nextLook, clock.now + .seconds(patience))
        waits.now = nil
      }
      let waiting = mailboxes.filter { pending[$0.id] != nil }
      guard let first = waiting.first else { return }
      let elapsed = (clock.now - start) / Duration.seconds(1)
      if elapsed >= timeout { return }
      if clock.now >= nextLook {
        let reason = try await explanation(Array(waiting.prefix(Self.looked)))
        if let reason, reason != waits.now {
          progress.remark("waiting for \(Words.duration(elapsed)): \(reason.message)")
          waits.all.append(Wait(afterSeconds: elapsed, reason: reason))
        }
        waits.now = reason
        nextLook = clock.now + .seconds(Self.lookInterval)
      }
      progress.wait(for: "waiting for \(first.address)")
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

  /// Why nothing happens, as far as the API knows; `nil` when a worker is at it.
  func explanation(_ mailboxes: [Mailbox]) async throws -> WaitReason? {
    try await WaitReasonFinder(kind: kind, api: session.api).reason(mailboxes)
  }
}
