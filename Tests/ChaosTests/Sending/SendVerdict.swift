import Foundation
import PostriderTesting

/// What the database says of each message against what the sink saw of it.
struct SendVerdict {
  let stage: SendClusterStage
  /// What the sink had seen before some messages were resent, and their numbers.
  let before: [Int: SunkMessage]
  let resent: Set<Int>

  private struct Row {
    var number: Int
    var state: String
    var attempts: Int
    var size: Int
    var hash: String
  }

  private func rows() async throws -> [Row] {
    try await stage.cluster.sql(
      """
      SELECT e.id, e.state, e.attempts, e.size_octets,
        encode(sha256((SELECT string_agg(c.octets, ''::bytea ORDER BY c.position) FROM content_chunk c
          WHERE c.content_id = e.content_id)), 'hex')
      FROM outgoing_email e
      """
    ).split(separator: "\n").compactMap { line in
      let fields = line.split(separator: "|").map(String.init)
      guard fields.count == 5, let number = Int(fields[0]), let attempts = Int(fields[2]), let size = Int(fields[3])
      else { return nil }
      return Row(number: number, state: fields[1], attempts: attempts, size: size, hash: fields[4])
    }
  }

  func judge(_ notes: SendReport) async throws -> SendReport {
    var report = notes
    let after = stage.sink.seen
    let rows = try await rows()
    report.messages = rows.count
    for row in rows { judge(row, after[row.number] ?? SunkMessage(), &report) }
    let ids = after.values.filter { $0.accepted > 0 }.map(\.messageID)
    report.sessions = stage.census.seen.reduce(0) { $0 + $1.total }
    report.limitViolations = stage.census.violations.count
    report.resent = resent.count

    func require(_ holds: Bool, _ text: @autoclosure () -> String) { if !holds { report.failures.append(text()) } }
    require(report.messages > 0, "no message was submitted")
    require(Set(ids).count == ids.count && !ids.contains(""), "Message-IDs are missing or stand in several messages")
    require(report.doubled == 0, "\(report.doubled) messages arrived twice")
    require(report.lost == 0, "\(report.lost) messages are sent and did not arrive")
    require(report.damaged == 0, "\(report.damaged) messages arrived as something else")
    require(report.undecided == 0, "\(report.undecided) messages are not decided")
    require(report.uncertainTooEarly == 0, "\(report.uncertainTooEarly) are uncertain although their end had not begun")
    require(report.resentArrived == report.resent, "\(report.resentArrived) of \(report.resent) resent ones arrived")
    require(report.limitViolations == 0, "a limit was exceeded \(report.limitViolations) times at the server")
    require(report.kills == stage.options.kills, "\(report.kills) of \(stage.options.kills) kills")
    require(report.missed * 10 <= report.kills, "\(report.missed) kills did not hit the place they were meant for")
    let stages = stage.options.stages.map { report.killsByStage[$0.rawValue] ?? 0 }
    require((stages.max() ?? 0) - (stages.min() ?? 0) <= 1, "the kills are not drawn evenly: \(report.killsByStage)")
    report.passed = report.failures.isEmpty
    return report
  }

  private func judge(_ row: Row, _ seen: SunkMessage, _ report: inout SendReport) {
    report.states[row.state, default: 0] += 1
    if row.attempts > 1 { report.triedAgain += 1 }
    let arrived = seen.accepted
    let earlier = before[row.number]?.accepted ?? 0
    if resent.contains(row.number) {
      if row.state == "sent" && arrived == earlier + 1 { report.resentArrived += 1 }
      if earlier > 1 { report.doubled += earlier - 1 }
    } else {
      report.doubled += max(0, arrived - 1)
    }
    if arrived > 0 && (seen.hash != row.hash || seen.messageID != "m\(row.number)@chaos.test") { report.damaged += 1 }
    switch row.state {
    case "sent": if arrived == 0 { report.lost += 1 }
    case "uncertain":
      // The sink was asked to take it, and of a large one more than the buffers hold had been read.
      let mayHaveLeft =
        seen.phase >= .goAhead && (row.size < SendSink.largeOctets || seen.phase > .body || seen.octets > row.size / 4)
      if !mayHaveLeft { report.uncertainTooEarly += 1 }
    case "failed", "partly-sent":
      // The sink refuses nothing.
      report.failures.append("message \(row.number) is \(row.state)")
    default: report.undecided += 1
    }
  }
}
