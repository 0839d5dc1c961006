import Foundation
import PostriderCore
import PostriderTesting
import PrivateServers
import Synchronization

extension ChaosRun {
  func apply(_ fault: Fault) async throws {
    switch fault {
    case .killWorker(let at, let choice): try await killWorker(at: at, choice)
    case .killScheduler(let leader, let choice): try await killScheduler(leader: leader, choice)
    case .restartRedis(let crash):
      try await interruptRedis(fault) { redis in
        if crash {
          await redis.kill9()
          try await redis.start()
        } else {
          try await redis.restart(withData: true)
        }
      }
    case .emptyRedis(let flush):
      try await interruptRedis(fault) { redis in
        if flush { try redis.flushAll() } else { try await redis.restart(withData: false) }
      }
    case .restartPostgres(let crash, let downSeconds): try await restartPostgres(fault, crash, downSeconds)
    case .stopWorker(let outcome, let choice): try await stopWorker(fault, outcome: outcome, choice)
    case .splitNetwork(let silent, let choice): try await splitNetwork(fault, silent: silent, choice)
    case .stopLeader: try await stopLeader(fault)
    }
  }

  // MARK: Killing workers

  private static func points(of stage: KillStage, _ choice: Int) -> [WirePoint] {
    switch stage {
    case .claim: [[.claimGranted], [.checkSent]][choice % 2]
    case .session: []
    case .commit: [[.outcomeSent], [.outcomeAnswered], [.storeSent], [.storeAnswered]][choice % 4]
    case .complete: [[.completeSent], [.completeAnswered]][choice % 2]
    }
  }

  private func killWorker(at killStage: KillStage, _ choice: Int) async throws {
    let workers = stage.all(.worker)
    guard !workers.isEmpty else { return note { $0.problems.append("there was no worker to kill") } }
    let victim = Mutex<(process: ClusterProcess, place: String, share: Double)?>(nil)
    let census = stage.census
    /// Kills a process unless another was killed already or too few slots are in use.
    @Sendable func strike(_ process: ClusterProcess, _ place: String) -> Bool {
      victim.withLock { struck in
        let share = census.share
        guard struck == nil, share >= Self.wantedShare else { return false }
        process.program.signal(SIGKILL)
        struck = (process, place, share)
        return true
      }
    }
    let points = Self.points(of: killStage, choice / 8)
    if killStage == .session {
      let byID = Dictionary(uniqueKeysWithValues: workers.map { ($0.id, $0) })
      stage.mail.trapRetrieval { connection in
        guard census.share >= Self.wantedShare, let owner = SocketTable.owner(of: connection, among: Array(byID.keys)),
          let process = byID[owner]
        else { return false }
        return strike(process, "retrieving")
      }
    } else {
      // The first of all workers that comes by: on a slow machine one alone may take its time.
      for process in workers {
        process.watch.set { point, _ in
          points.contains(point) && strike(process, point.rawValue) ? .drop : nil
        }
      }
    }
    _ = await eventually(within: .seconds(30)) { victim.withLock { $0 != nil } }
    for process in workers { process.watch.set(nil) }
    stage.mail.trapRetrieval(nil)
    if victim.withLock({ $0 == nil }) {
      _ = await eventually(within: .seconds(120)) { strike(workers[choice % workers.count], "anywhere") }
    }
    guard let (process, place, share) = victim.withLock({ $0 }) else {
      return note { $0.problems.append("too few slots in use for a kill") }
    }
    let killedAt = Clock.now
    note {
      $0.kills.append(KillRecord(role: "worker", stage: killStage.rawValue, place: place, busyShare: share))
    }
    say("killed worker \(process.id) at \(killStage.rawValue) (\(place))")
    beside { await self.measureReturn(of: process.id, since: killedAt) }
    try await stage.replace(process)
  }

  /// Waits until no lease of a dead worker is left.
  private func measureReturn(of dead: Int32, since moment: Clock.Instant) async {
    var rest = stage.accounts
    var asked = Clock.now
    let returned = await eventually(within: .seconds(60)) {
      asked = Clock.now
      guard let places = try? await stage.locations(of: rest) else { return false }
      rest = zip(rest, places).filter { $1.isLeased(by: dead) }.map(\.0)
      return rest.isEmpty
    }
    recovered(.worker, from: moment, to: returned ? asked : nil)
  }

  // MARK: Killing schedulers

  private func killScheduler(leader: Bool, _ choice: Int) async throws {
    let leading = try await stage.leader()
    let schedulers = stage.all(.scheduler)
    guard let victim = schedulers.first(where: { ($0.id == leading) == leader }) ?? schedulers.first else {
      return note { $0.problems.append("there was no scheduler to kill") }
    }
    let isLeader = victim.id == leading
    let struck = Mutex<(place: String, share: Double, at: Clock.Instant)?>(nil)
    let census = stage.census
    @Sendable func strike(_ place: String) -> Bool {
      struck.withLock { struck in
        let share = census.share
        guard struck == nil, share >= Self.wantedShare else { return false }
        victim.program.signal(SIGKILL)
        struck = (place, share, Clock.now)
        return true
      }
    }
    if isLeader {
      let wanted = [WirePoint.enqueueSent, .enqueueAnswered][choice % 2]
      victim.watch.set { point, _ in point == wanted && strike(point.rawValue) ? .drop : nil }
      _ = await eventually(within: .seconds(30)) { struck.withLock { $0 != nil } }
      victim.watch.set(nil)
    }
    if struck.withLock({ $0 == nil }) { _ = await eventually(within: .seconds(120)) { strike("anywhere") } }
    guard let (place, share, killedAt) = struck.withLock({ $0 }) else {
      return note { $0.problems.append("too few slots in use for a kill") }
    }
    note {
      $0.kills.append(
        KillRecord(role: isLeader ? "leader" : "standby", stage: "scheduler", place: place, busyShare: share))
    }
    say("killed the \(isLeader ? "leading" : "standby") scheduler \(victim.id) (\(place))")
    if isLeader {
      beside { [stage] in
        let next = await stage.telltale.wait(
          for: [.enqueueAnswered], after: killedAt, except: victim.id, within: .seconds(60))
        self.recovered(.leader, from: killedAt, to: next)
      }
    }
    try await stage.replace(victim)
  }

  // MARK: Servers

  private func interruptRedis(
    _ fault: Fault, _ interrupt: (PrivateRedis) async throws -> Void
  ) async throws {
    await finishBackground()
    say(fault.description)
    try await interrupt(stage.redis)
    let answeredAt = Clock.now
    recovered(
      .redis, from: answeredAt,
      to: await stage.telltale.wait(for: [.claimGranted], after: answeredAt, within: .seconds(60)))
  }

  private func restartPostgres(_ fault: Fault, _ crash: Bool, _ downSeconds: Double) async throws {
    await finishBackground()
    say(fault.description)
    if crash {
      await stage.postgres.kill9()
      try await Task.sleep(for: .seconds(downSeconds))
      try await stage.postgres.start()
    } else {
      try await stage.postgres.restart()
    }
    let answeredAt = Clock.now
    recovered(
      .postgres, from: answeredAt,
      to: await stage.telltale.wait(
        for: [.outcomeAnswered, .storeAnswered], after: answeredAt, within: .seconds(60)))
  }

  // MARK: Stops

  /// Stops a worker at the moment when it sends a transaction, lets its leases end and others do its work, then sends
  /// the transaction on and lets the worker go on.
  private func stopWorker(_ fault: Fault, outcome: Bool, _ choice: Int) async throws {
    await finishBackground()
    let caught = Mutex<(process: ClusterProcess, at: Clock.Instant, bytes: [UInt8])?>(nil)
    let workers = stage.all(.worker)
    var fencedBefore: [Int32: Double] = [:]
    for process in workers {
      fencedBefore[process.id] = await metric("postrider_results_fenced_total", of: process) ?? 0
    }
    let wanted: WirePoint = outcome ? .outcomeSent : .storeSent
    for process in workers {
      process.watch.set { point, unit in
        guard point == wanted else { return nil }
        return caught.withLock { caught in
          guard caught == nil else { return nil }
          process.program.signal(SIGSTOP)
          caught = (process, Clock.now, Array(unit.bytes.readableBytesView))
          return .hold
        }
      }
    }
    _ = await eventually(within: .seconds(60)) { caught.withLock { $0 != nil } }
    for process in workers { process.watch.set(nil) }
    guard let (process, stoppedAt, bytes) = caught.withLock({ $0 }) else {
      return note { $0.problems.append("no worker sent \(wanted.rawValue)") }
    }
    say("stopped worker \(process.id) at \(wanted.rawValue)")
    let lease = Double(options.leaseSeconds)
    // At once: the oldest of its leases may end soon.
    let frozen = try await leases(of: process.id)
    let late = frozen.filter { $0.isNamed(in: bytes) }
    // From the end of its oldest lease on nobody but the frozen process could close its sessions. On a busy machine that
    // lease may have waited for its renewal for most of its time.
    let ends = frozen.compactMap(\.leaseEndsMilliseconds).min().map { Double($0) / 1_000 } ?? .infinity
    let left = min(
      lease * 0.6 - (Clock.now - stoppedAt) / .seconds(1), ends - 0.1 - Date().timeIntervalSince1970)
    // Told at once: at the moment from which it counts, this process may stand still itself.
    let apart = stage.census.setApart(process.connections, from: Clock.now + .seconds(left))
    note { $0.apart += apart }
    try await Task.sleep(until: stoppedAt + .seconds(lease + 0.5), clock: .continuous)
    // Others have done again what it held: then its write is too late.
    let jobs = late.map { "'\($0.job)'" }.joined(separator: ",")
    let overtaken = try await eventually(within: .seconds(90)) {
      let newer = try await stage.cluster.sql(
        """
        SELECT count(DISTINCT job) FROM chaos.outcome WHERE job IN (\(jobs.isEmpty ? "''" : jobs))
          AND at > \(Date().timeIntervalSince1970 - (Clock.now - stoppedAt) / .seconds(1) + lease * 0.6)
        """)
      return Int(newer) ?? 0 >= late.count
    }
    if !overtaken { say("not all of its \(late.count) jobs were done again") }
    let releasedAt = Clock.now
    process.postgres.release()
    // The process finds its write answered when it goes on. A refused one has no such answer.
    _ = await stage.telltale.wait(
      for: [outcome ? .outcomeAnswered : .storeAnswered], after: releasedAt, of: process.id, within: .seconds(3))
    process.program.signal(SIGCONT)
    let wentOnAt = Clock.now
    note { $0.lateWrites += 1 }
    let closed = await eventually(within: .seconds(60)) { stage.census.apart == 0 }
    let seconds = (Clock.now - wentOnAt) / .seconds(1)
    note {
      $0.closedAfterStop.append(seconds)
      if !closed { $0.problems.append("sessions of a stopped worker stayed open after it went on") }
    }
    var fenced = 0.0
    // A guard that lets everybody write refuses nothing.
    _ = await eventually(within: .seconds(options.mistake == nil ? 60 : 5)) {
      fenced = (await metric("postrider_results_fenced_total", of: process) ?? 0) - (fencedBefore[process.id] ?? 0)
      return fenced > 0
    }
    note { $0.fencedWrites += Int(fenced) }
    say(
      "worker \(process.id) goes on: \(late.count) late writes of \(frozen.count) jobs, \(Int(fenced)) counted as fenced"
    )
  }

  private func leases(of process: Int32) async throws -> [JobLocation] {
    try await stage.locations().filter { $0.isLeased(by: process) }
  }

  private func splitNetwork(_ fault: Fault, silent: Bool, _ choice: Int) async throws {
    let workers = stage.all(.worker)
    guard !workers.isEmpty else { return }
    let process = workers[choice % workers.count]
    say("\(fault.description) (\(process.id))")
    if silent { process.redis.silence() } else { process.redis.cut() }
    try await Task.sleep(for: .seconds(Double(options.leaseSeconds) * 1.5))
    if silent { process.redis.heal() } else { process.redis.mend() }
    say("worker \(process.id) reaches Redis again")
  }

  private func stopLeader(_ fault: Fault) async throws {
    await finishBackground()
    let leading = try await stage.leader()
    guard let process = stage.all(.scheduler).first(where: { $0.id == leading }) else { return }
    process.program.signal(SIGSTOP)
    let stoppedAt = Clock.now
    say("stopped the leading scheduler \(process.id)")
    let next = await stage.telltale.wait(
      for: [.enqueueAnswered], after: stoppedAt + .milliseconds(100), except: process.id, within: .seconds(60))
    recovered(.leader, from: stoppedAt, to: next)
    process.program.signal(SIGCONT)
    say("scheduler \(process.id) goes on: two leaders for a moment")
  }
}

extension JobLocation {
  /// Whether a process holds it. One that was set aside still names its last worker.
  fileprivate func isLeased(by process: Int32) -> Bool {
    state == "leased" && worker?.contains("-\(process)-") ?? false
  }

  /// Whether a transaction writes for this job's mailbox: its number stands among the binary parameters.
  fileprivate func isNamed(in bytes: [UInt8]) -> Bool {
    guard let id = JobID(job)?.mailbox.value else { return false }
    let mark = [0, 0, 0, 8] + withUnsafeBytes(of: id.bigEndian) { Array($0) }
    return Data(bytes).range(of: Data(mark)) != nil
  }
}
