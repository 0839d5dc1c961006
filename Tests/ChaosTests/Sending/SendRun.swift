import Foundation
import PostriderCore
import PostriderTesting
import Synchronization

/// Plays faults against a cluster that sends, and judges what arrived.
final class SendRun: Sendable {
  typealias Clock = ContinuousClock

  let stage: SendClusterStage
  let options: SendOptions
  private let notes: Mutex<SendReport>
  private let log: @Sendable (String) -> Void
  /// Whether no new mail comes, so that sessions run out of it.
  private let isDry = Mutex(false)
  private let began = Clock.now

  init(_ stage: SendClusterStage, log: @escaping @Sendable (String) -> Void) {
    self.stage = stage
    options = stage.options
    notes = Mutex(SendReport(seed: stage.options.seed))
    self.log = log
  }

  private func note(_ change: (inout SendReport) -> Void) { notes.withLock { change(&$0) } }

  private func say(_ text: String) {
    let seconds = (Clock.now - began) / .seconds(1)
    log("\(String(format: "%6.1f", seconds)) s  \(stage.census.use.busy) sessions, \(stage.messages) messages  \(text)")
  }

  /// Starts the cluster, plays the faults, lets everything come to rest, and judges.
  func play() async throws -> SendReport {
    let fleet = stage.fleet
    try await stage.submit()
    try await fleet.start(.scheduler)
    for _ in 0..<options.workers { try await fleet.start(.worker) }
    let traffic = Task { await self.traffic() }
    for fault in options.faults {
      await saturate(fault.description)
      note { $0.faults[fault.description, default: 0] += 1 }
      try await apply(fault)
      for words in fleet.fallen() { note { $0.failures.append("ended by itself: \(words)") } }
    }
    traffic.cancel()
    await traffic.value
    say("no more faults, no more mail")
    try await comeToRest("every message is decided")
    let before = stage.sink.seen
    let resent = try await resendSome()
    note { $0.seconds = (Clock.now - began) / .seconds(1) }
    return try await SendVerdict(stage: stage, before: before, resent: resent).judge(notes.withLock { $0 })
  }

  // MARK: Around the faults

  /// New mail comes until the task is cancelled.
  private func traffic() async {
    var round = 0
    while !Task.isCancelled {
      // PostgreSQL may be away; the next round submits again.
      if !isDry.withLock({ $0 }) { try? await stage.submit() }
      round += 1
      if round % 10 == 0 { try? await releasePoison() }
      try? await Task.sleep(for: .milliseconds(300))  // Cancelled: the loop ends.
    }
  }

  /// Waits until sessions are under way again.
  private func saturate(_ what: String) async {
    let wanted = max(2, stage.mailboxes.count / 2)
    let busy = await eventually(within: .seconds(180)) { stage.census.use.busy >= wanted }
    if !busy { note { $0.failures.append("only \(stage.census.use.busy) sessions before: \(what)") } }
  }

  /// Jobs that were killed too often are set aside; an operator looks and lets them go on.
  private func releasePoison() async throws {
    let (store, principal) = (stage.cluster.store, stage.cluster.principal)
    let poisoned = try await store.setAsideJobs(PageRequest(limit: 500), for: principal).items.compactMap {
      JobID($0.job)
    }
    if poisoned.isEmpty { return }
    let released = try await store.releaseJobs(poisoned, by: principal)
    note { $0.poisonReleased += released.count }
  }

  private func comeToRest(_ what: String) async throws {
    // A job that was leased when its time came is found by the next rescan.
    try await stage.cluster.sql("SELECT pg_notify('postrider_schedule', 'r')")
    let rested = try await eventually(within: .seconds(360)) {
      try await releasePoison()
      return try await stage.cluster.sql(
        "SELECT count(*) FROM outgoing_email WHERE state IN ('pending-send', 'sending')") == "0"
    }
    if !rested { note { $0.failures.append("not within six minutes: \(what)") } }
  }

  /// Sends some uncertain messages again, as a person does who has looked. Returns their numbers.
  private func resendSome() async throws -> Set<Int> {
    let rows = try await stage.cluster.sql(
      "SELECT id FROM outgoing_email WHERE state = 'uncertain' ORDER BY id LIMIT 5")
    let numbers = Set(rows.split(separator: "\n").compactMap { Int($0) })
    for number in numbers {
      _ = try await stage.cluster.store.retryOutgoing(
        OutgoingEmailID(Int64(number)), resendUncertain: true, by: stage.cluster.principal)
    }
    if !numbers.isEmpty { try await comeToRest("what was resent is decided") }
    return numbers
  }

  // MARK: Faults

  private func apply(_ fault: SendFault) async throws {
    switch fault {
    case .kill(let stage, let place): try await kill(at: stage, place)
    case .killScheduler:
      guard let victim = stage.fleet.all(.scheduler).first else { return }
      victim.program.signal(SIGKILL)
      say(fault.description)
      try await stage.fleet.replace(victim)
    case .restartRedis(let keepsData):
      say(fault.description)
      if keepsData {
        await stage.servers.redis.kill9()
        try await stage.servers.redis.start()
      } else {
        try await stage.servers.redis.restart(withData: false)
      }
    case .restartPostgres(let crash):
      say(fault.description)
      if crash {
        await stage.servers.postgres.kill9()
        try await stage.servers.postgres.start()
      } else {
        try await stage.servers.postgres.restart()
      }
    }
  }

  private func kill(at killStage: SendStage, _ wanted: SendPlace) async throws {
    let workers = stage.fleet.all(.worker)
    guard !workers.isEmpty else { return note { $0.failures.append("there was no worker to kill") } }
    let victim = Mutex<(process: ClusterProcess, place: String)?>(nil)
    @Sendable func strike(_ process: ClusterProcess, _ place: String) -> Bool {
      victim.withLock { struck in
        guard struck == nil else { return false }
        process.program.signal(SIGKILL)
        struck = (process, place)
        return true
      }
    }
    switch wanted {
    case .sink(let phase):
      let byID = Dictionary(uniqueKeysWithValues: workers.map { ($0.id, $0) })
      stage.sink.set(phase) { connection in
        guard let owner = SocketTable.owner(of: connection, among: Array(byID.keys)), let process = byID[owner] else {
          return false
        }
        return strike(process, wanted.name)
      }
    case .wire(let point):
      for process in workers {
        process.watch.set { seen, _ in seen == point && strike(process, wanted.name) ? .drop : nil }
      }
    }
    isDry.withLock { $0 = wanted == .sink(.quit) }
    _ = await eventually(within: .seconds(120)) { victim.withLock { $0 != nil } }
    isDry.withLock { $0 = false }
    stage.sink.unset()
    for process in workers { process.watch.set(nil) }
    if victim.withLock({ $0 == nil }) {
      note { $0.missed += 1 }
      _ = strike(workers[0], "anywhere")
    }
    guard let (process, place) = victim.withLock({ $0 }) else { return }
    note {
      $0.kills += 1
      $0.killsByStage[killStage.rawValue, default: 0] += 1
      $0.killsByPlace[place, default: 0] += 1
    }
    say("killed worker \(process.id) at \(killStage.rawValue) (\(place))")
    try await stage.fleet.replace(process)
  }
}
