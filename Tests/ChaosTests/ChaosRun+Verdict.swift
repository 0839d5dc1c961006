import Foundation
import PostriderTesting

extension ChaosRun {
  /// What is in the database against what the server offered.
  private struct Ledger {
    var offered = 0
    var lost = 0
    var doubled = 0
    var damaged = 0
    var examples: [String] = []
  }

  private func compareMessages() async throws -> Ledger {
    var stored: [String: [String: [String]]] = [:]
    for line in try await stage.cluster.sql(Audit.stored).split(separator: "\n") {
      let fields = line.split(separator: "|").map(String.init)
      if fields.count == 3 { stored[fields[0], default: [:]][fields[1], default: []].append(fields[2]) }
    }
    var ledger = Ledger()
    let offered = Dictionary(uniqueKeysWithValues: stage.mail.allDrops.map { ($0.name, $0.offered) })
    for account in stage.accounts {
      var mine = stored[account.address] ?? [:]
      for (uidl, hash) in offered[account.drop] ?? [:] {
        ledger.offered += 1
        let copies = mine.removeValue(forKey: uidl) ?? []
        if copies.isEmpty {
          ledger.lost += 1
          if ledger.examples.count < 5 { ledger.examples.append("\(account.address) has no \(uidl)") }
        }
        if copies.count > 1 { ledger.doubled += copies.count - 1 }
        let text = hash.map { String(format: "%02x", $0) }.joined()
        if copies.contains(where: { $0 != text }) { ledger.damaged += 1 }
      }
      // What was never offered cannot be right either.
      ledger.damaged += mine.count
    }
    return ledger
  }

  /// Leases that were ended before the outcome of their session was written. Both clocks are this machine's.
  private func earlyCompletes() async throws -> Int {
    let completes = stage.telltale.completes
    var early = 0
    for line in try await stage.cluster.sql(Audit.outcomes).split(separator: "\n") {
      let fields = line.split(separator: "|")
      guard fields.count == 3, let written = Double(fields[2]), let ended = completes["\(fields[0]) \(fields[1])"]
      else {
        continue
      }
      if ended < written { early += 1 }
    }
    return early
  }

  private func times(_ notes: Notes) -> [String: Report.Times] {
    let lease = Double(options.leaseSeconds)
    let allowed: [Recovery.Kind: Double] = [.worker: lease + 1, .leader: 16, .redis: lease + 3, .postgres: 3]
    var times: [String: Report.Times] = [:]
    for (kind, limit) in allowed {
      let limit = limit + options.slackSeconds
      let all = notes.recoveries.filter { $0.kind == kind }
      if all.isEmpty { continue }
      let seconds = all.map { $0.seconds ?? 60 }.sorted()
      times[kind.rawValue] = Report.Times(
        count: all.count, p50Seconds: seconds[seconds.count / 2], maximumSeconds: seconds[seconds.count - 1],
        allowedSeconds: limit, exceeded: seconds.count { $0 > limit })
    }
    return times
  }

  func judge(starved: Int, notes: Notes, seconds: Double) async throws -> Report {
    let ledger = try await compareMessages()
    let stale = try await stage.cluster.sql(Audit.staleWrites).split(separator: "\n")
    let unserved =
      Int(
        try await stage.cluster.sql("SELECT count(*) FROM mailbox_schedule WHERE requested > served")) ?? 0
    let early = try await earlyCompletes()
    let violations = stage.census.violations
    let seen = stage.census.seen
    let atLimit = seen.filter { $0.highest == $0.limit }
    let perMailbox = atLimit.count { if case .mailbox = $0.identity { true } else { false } }
    let perProfile = atLimit.count - perMailbox
    // A profile whose mailboxes have accounts of their own is at its limit when each of them is.
    let ownProfiles = options.mailboxesEach == 0 ? 0 : perMailbox / options.mailboxesEach
    let profiles = options.profileLimits.count + options.mailboxLimits.count
    let times = times(notes)
    let leastShare = notes.kills.map(\.busyShare).min() ?? 1
    let stages = Dictionary(notes.kills.map { ($0.stage, 1) }, uniquingKeysWith: +)

    var failures = notes.problems
    func require(_ holds: Bool, _ text: @autoclosure () -> String) { if !holds { failures.append(text()) } }
    require(ledger.lost == 0, "\(ledger.lost) messages are lost: \(ledger.examples.joined(separator: "; "))")
    require(ledger.doubled == 0, "\(ledger.doubled) messages are stored twice")
    require(ledger.damaged == 0, "\(ledger.damaged) messages are not what was offered")
    require(ledger.offered > 0, "no message was offered")
    require(starved == 0, "\(starved) mailboxes were not polled any more")
    require(unserved == 0, "\(unserved) requests were not served")
    require(violations.count == 0, "a limit was exceeded \(violations.count) times at the mail server")
    require(stale.isEmpty, "\(stale.count) late writes were not fenced: \(stale.prefix(3).joined(separator: "; "))")
    require(early == 0, "\(early) leases were ended before their outcome was committed")
    require(stage.mail.refusals == 0, "\(stage.mail.refusals) logins were refused")
    require(
      notes.lateWrites == 0 || notes.fencedWrites > 0 || options.mistake != nil, "no worker counted a late write")
    require(
      leastShare >= Self.wantedShare, "a kill came while only \(Int(leastShare * 100)) % of the slots were in use")
    if options.isFull {
      require(
        atLimit.count == seen.count,
        "not at the limit: "
          + seen.filter { $0.highest != $0.limit }.prefix(8).map { "\($0.identity) \($0.highest)/\($0.limit)" }
          .joined(separator: ", "))
      for (kind, figures) in times {
        require(
          figures.exceeded == 0,
          "\(kind): \(figures.exceeded) of \(figures.count) recoveries took longer than \(figures.allowedSeconds) s")
      }
      let perStage = KillStage.allCases.map { stages[$0.rawValue] ?? 0 }
      require(
        (perStage.max() ?? 0) - (perStage.min() ?? 0) <= 1, "the kills are not drawn evenly: \(stages)")
      let missed = notes.kills.count { $0.role == "worker" && $0.place == "anywhere" }
      require(missed * 10 <= notes.kills.count, "\(missed) kills did not hit the place they were meant for")
    }

    return Report(
      seed: options.seed, passed: failures.isEmpty, failures: failures, seconds: seconds, profiles: profiles,
      mailboxes: stage.accounts.count, slots: stage.census.use.slots, sessions: seen.reduce(0) { $0 + $1.total },
      messagesOffered: ledger.offered, messagesLost: ledger.lost, messagesDoubled: ledger.doubled,
      messagesDamaged: ledger.damaged, mailboxesStarved: starved, requestsUnserved: unserved, identities: seen.count,
      identitiesAtTheirLimit: atLimit.count, profilesAtTheirLimit: perProfile + ownProfiles,
      limitViolations: violations.count, firstViolations: violations.first,
      excessWhileStopped: seen.map { $0.withApart - $0.limit }.max().map { max(0, $0) } ?? 0,
      staleWrites: stale.count, earlyCompletes: early, lateWrites: notes.lateWrites,
      lateWritesFenced: notes.fencedWrites, closedAfterStopSeconds: notes.closedAfterStop,
      poisonReleased: notes.released, kills: notes.kills.count, killsByStage: stages,
      killsByPlace: Dictionary(notes.kills.map { ($0.place, 1) }, uniquingKeysWith: +),
      leastBusyShareAtKill: leastShare, faults: notes.faults, recovery: times)
  }
}
