import AsyncHTTPClient
import Foundation
import NIOCore
import PostriderCore
import PostriderTesting
import Synchronization

/// A process that was killed.
struct KillRecord: Sendable, Codable {
  var role: String
  /// The stage it was drawn for.
  var stage: String
  /// The exact place; `anywhere` when the one wanted did not come by in time.
  var place: String
  /// The share of all slots that was in use at that moment.
  var busyShare: Double
}

/// How long something took to work again.
struct Recovery: Sendable, Codable {
  enum Kind: String, Sendable, Codable, CaseIterable {
    case worker, leader, redis, postgres, split
  }

  var kind: Kind
  /// `nil` when it did not within a minute.
  var seconds: Double?
}

/// Plays a plan against a stage and keeps notes.
final class ChaosRun: Sendable {
  typealias Clock = ContinuousClock

  struct Notes: Sendable {
    var kills: [KillRecord] = []
    var recoveries: [Recovery] = []
    var problems: [String] = []
    var faults: [String: Int] = [:]
    /// Late writes that were sent on, and those that workers counted as fenced.
    var lateWrites = 0
    var fencedWrites = 0
    /// Sessions of stopped processes that their server could not know to be dead.
    var apart = 0
    var released = 0
    /// How long sessions stayed open after their process went on again.
    var closedAfterStop: [Double] = []
  }

  let stage: Stage
  let options: ChaosOptions
  private let notes = Mutex(Notes())
  private let background = Mutex<[Task<Void, Never>]>([])
  private let log: @Sendable (String) -> Void
  private let began = Clock.now

  init(_ stage: Stage, log: @escaping @Sendable (String) -> Void) {
    self.stage = stage
    options = stage.options
    self.log = log
  }

  /// The share of slots that has to be in use when something is killed.
  static let wantedShare = 0.8

  func note(_ change: (inout Notes) -> Void) { notes.withLock { change(&$0) } }

  func say(_ text: String) {
    let seconds = (Clock.now - began) / .seconds(1)
    let (busy, slots) = stage.census.use
    log("\(String(format: "%6.1f", seconds)) s  \(busy)/\(slots) slots  \(text)")
  }

  /// Starts the cluster, plays the plan, lets everything come to rest, and judges.
  func play() async throws -> Report {
    stage.census.begin { [stage] connection in
      SocketTable.owner(of: connection, among: stage.all(.worker).map(\.id)).map { "of \($0)" } ?? "of nobody"
    }
    for _ in 0..<options.schedulers { try await stage.start(.scheduler) }
    for _ in 0..<options.workers { try await stage.start(.worker) }
    let traffic = Task { await self.traffic() }
    let pace = options.isFull ? Task { await self.keepBusy() } : nil
    if options.isFull {
      try await saturate("at the start")
    } else {
      _ = await stage.telltale.wait(for: [.completeAnswered], after: began, within: .seconds(120))
    }
    for fault in FaultPlan(options.faults, seed: options.seed).faults {
      if options.isFull { try await saturate(fault.description) }
      note { $0.faults[fault.description, default: 0] += 1 }
      try await apply(fault)
      for words in stage.fallen() { note { $0.problems.append("ended by itself: \(words)") } }
    }
    await finishBackground()
    if options.isFull { try await saturate("the end") }
    for task in [traffic, pace] {
      task?.cancel()
      await task?.value
    }
    say("no more faults, no more mail")
    let starved = try await comeToRest()
    let report = try await judge(
      starved: starved, notes: notes.withLock { $0 }, seconds: (Clock.now - began) / .seconds(1))
    return report
  }

  /// Waits until enough slots are in use.
  private func saturate(_ what: String) async throws {
    var looked = Clock.now
    let full = await eventually(within: .seconds(180)) {
      if Clock.now - looked > .seconds(5) {
        looked = Clock.now
        if let numbers = try? await stage.queue.statistics() {
          say("waiting: \(numbers.totalReady) ready, \(numbers.inFlight) leased, blocked \(numbers.blocked)")
        }
      }
      return stage.census.share >= Self.wantedShare
    }
    if !full {
      let (busy, slots) = stage.census.use
      note { $0.problems.append("only \(busy) of \(slots) slots in use before: \(what)") }
    }
  }

  /// Lets sessions take longer while too few slots are in use: a machine that is slower between two sessions, as one is
  /// on which other tests run, would have too few of them for a kill to mean anything.
  private func keepBusy() async {
    var factor = 1.0
    while !Task.isCancelled {
      try? await Task.sleep(for: .seconds(1))  // Cancelled: the loop ends.
      let share = stage.census.share
      factor = share < Self.wantedShare + 0.08 ? min(4, factor * 1.1) : share > 0.95 ? max(1, factor / 1.05) : factor
      let planned = options.sessionSeconds
      stage.mail.take(planned.lowerBound * factor...planned.upperBound * factor)
    }
  }

  // MARK: Mail and requests

  /// New mail arrives and people ask for polls until the task is cancelled.
  private func traffic() async {
    var dice = Dice(seed: options.seed &+ 3)
    let drops = stage.mail.allDrops.sorted { $0.name < $1.name }
    let own = drops.filter { !$0.name.hasPrefix("account") }
    var round = 0
    while !Task.isCancelled {
      round += 1
      own[dice.number(below: own.count)].deliver(using: &dice)
      // Mail of a profile's account comes to many mailboxes at once.
      if round % 4 == 0 { drops[dice.number(below: drops.count)].deliver(using: &dice) }
      if round % 4 == 2 {
        let ids = (0..<3).map { _ in stage.accounts[dice.number(below: stage.accounts.count)].id }
        // Refused while PostgreSQL is away, and then nothing was promised.
        _ = try? await stage.cluster.store.requestPoll(of: Array(Set(ids)), by: stage.cluster.principal)
      }
      // PostgreSQL may be away; the next round looks again.
      if round % 20 == 0 { try? await releasePoison() }
      try? await Task.sleep(for: .milliseconds(250))  // Cancelled: the loop ends.
    }
  }

  /// Everything that was asked for gets done. Returns how many mailboxes were not polled.
  private func comeToRest() async throws -> Int {
    stage.mail.take(0.02...0.1)
    try await stage.cluster.sql("UPDATE chaos.pace SET seconds = \(options.isFull ? 5 : 0.6)")
    // Jobs that were still leased when their time came are found by the next rescan.
    try await stage.cluster.sql("SELECT pg_notify('postrider_schedule', 'r')")
    let since = Date().timeIntervalSince1970
    var starved = stage.accounts.count
    // With slots that are never freed some starve however long it is.
    let limit: Duration = options.mistake == .slotNeverFreed ? .seconds(10) : .seconds(240)
    _ = try await eventually(within: limit) {
      try await releasePoison()
      starved = try await stage.cluster.sql(Audit.notPolled(since: since)).split(separator: "\n").count
      return starved == 0
    }
    return starved
  }

  /// Jobs that were killed too often are set aside; an operator looks and lets them go on.
  private func releasePoison() async throws {
    let (store, principal) = (stage.cluster.store, stage.cluster.principal)
    let poisoned = try await store.setAsideJobs(PageRequest(limit: 500), for: principal).items.compactMap {
      JobID($0.job)
    }
    if poisoned.isEmpty { return }
    let released = try await store.releaseJobs(poisoned, by: principal)
    note { $0.released += released.count }
  }

  // MARK: Measuring beside

  /// Measures something while the plan goes on.
  func beside(_ body: @escaping @Sendable () async -> Void) {
    let task = Task { await body() }
    background.withLock { $0.append(task) }
  }

  /// Waits for all measurements: a fault of Redis or PostgreSQL would spoil them.
  func finishBackground() async {
    let tasks = background.withLock { tasks in
      defer { tasks = [] }
      return tasks
    }
    for task in tasks { await task.value }
  }

  func recovered(_ kind: Recovery.Kind, from: Clock.Instant, to: Clock.Instant?) {
    let seconds = to.map { ($0 - from) / .seconds(1) }
    note { $0.recoveries.append(Recovery(kind: kind, seconds: seconds)) }
    say("\(kind.rawValue): works again after \(seconds.map { String(format: "%.2f s", $0) } ?? "more than a minute")")
  }

  /// A counter of a process, by its metrics.
  func metric(_ name: String, of process: ClusterProcess) async -> Double? {
    let request = HTTPClientRequest(url: "http://127.0.0.1:\(process.probePort)/metrics")
    guard let response = try? await HTTPClient.shared.execute(request, timeout: .seconds(5)),
      let body = try? await response.body.collect(upTo: 4 << 20)
    else { return nil }
    let lines = String(buffer: body).split(separator: "\n").filter { $0.hasPrefix(name) }
    return lines.compactMap { $0.split(separator: " ").last.flatMap { Double($0) } }.reduce(0, +)
  }
}
