import FoundationEssentials
import Metrics
import PostriderCore
import Synchronization

/// What a worker counts. Labels have few values: never a mailbox, an address or a host.
struct WorkerMetrics: Sendable {
  private let slotsBusy = Meter(label: "postrider_worker_slots", dimensions: [("state", "busy")])
  private let slotsTotal = Meter(label: "postrider_worker_slots", dimensions: [("state", "total")])
  private let reclaims = Counter(label: "postrider_leases_reclaimed_total")
  private let fences = Counter(label: "postrider_results_fenced_total")
  private let received = Counter(label: "postrider_messages_total", dimensions: [("direction", "incoming")])
  private let sent = Counter(label: "postrider_messages_total", dimensions: [("direction", "outgoing")])
  private let octets = Counter(label: "postrider_message_bytes_total")
  private let sessions = SessionSeries()
  private let delay = Timer(label: "postrider_dispatch_delay_seconds")

  init() {
    // From the start: a series that begins with its first event is one that never grew, and has no rate.
    for kind in JobKind.allCases {
      _ = sessions.counter(kind.word, RunResult.success.rawValue, "")
      for failure in FailureClass.allCases {
        _ = sessions.counter(kind.word, RunResult.failure.rawValue, failure.rawValue)
      }
    }
    for reason in ["breaker", "halted", "login-budget"] { refused(reason, by: 0) }
    for change in ["opened", "closed", "halted", "resumed"] { breaker(change, by: 0) }
  }

  func slots(busy: Int, total: Int) {
    slotsBusy.set(busy)
    slotsTotal.set(total)
  }

  func reclaimed(_ count: Int) { if count > 0 { reclaims.increment(by: Int64(count)) } }

  func fenced() { fences.increment() }

  func skipped(_ reason: String) {
    Counter(label: "postrider_jobs_skipped_total", dimensions: [("reason", reason)]).increment()
  }

  /// A session that did not connect or log in: `breaker` or `login-budget`.
  func refused(_ reason: String, by count: Int = 1) {
    Counter(label: "postrider_sessions_refused_total", dimensions: [("reason", reason)]).increment(by: count)
  }

  /// A breaker that a session of this worker `opened` or `closed`.
  func breaker(_ change: String, by count: Int = 1) {
    Counter(label: "postrider_breaker_changes_total", dimensions: [("change", change)]).increment(by: count)
  }

  func started(_ task: SessionTask) {
    let seconds = Date().timeIntervalSince(task.assignment.dueAt)
    delay.recordNanoseconds(Int64(max(seconds, 0) * 1_000_000_000))
  }

  func interrupted(_ task: SessionTask, _ outcome: String) {
    finished(kind: task.lease.job.kind.word, outcome: outcome, errorClass: "")
  }

  func finished(_ outcome: SessionOutcome, _ result: OutcomeResult) {
    if result == .fenced { fences.increment() }
    let run = outcome.run
    let kind = outcome.writer.job.kind.word
    finished(
      kind: kind, outcome: result == .fenced ? "fenced" : run.result.rawValue,
      errorClass: run.failure?.failureClass.rawValue ?? "")
    sessions.timer(kind, run.result.rawValue)
      .recordNanoseconds(Int64(max(run.finishedAt.timeIntervalSince(run.startedAt), 0) * 1_000_000_000))
    if run.messagesStored > 0 {
      received.increment(by: Int64(run.messagesStored))
      octets.increment(by: run.octetsStored)
    }
    if run.messagesSent > 0 { sent.increment(by: Int64(run.messagesSent)) }
  }

  private func finished(kind: String, outcome: String, errorClass: String) {
    sessions.counter(kind, outcome, errorClass).increment()
  }
}

/// The series of finished sessions by their labels: finding one in the registry takes longer than counting.
private final class SessionSeries: Sendable {
  private struct State {
    var counters: [[String]: Counter] = [:]
    var timers: [[String]: Timer] = [:]
  }

  private let state = Mutex(State())

  func counter(_ kind: String, _ outcome: String, _ errorClass: String) -> Counter {
    state.withLock { state in
      if let known = state.counters[[kind, outcome, errorClass]] { return known }
      let made = Counter(
        label: "postrider_jobs_finished_total",
        dimensions: [("kind", kind), ("outcome", outcome), ("error_class", errorClass)])
      state.counters[[kind, outcome, errorClass]] = made
      return made
    }
  }

  func timer(_ kind: String, _ outcome: String) -> Timer {
    state.withLock { state in
      if let known = state.timers[[kind, outcome]] { return known }
      let made = Timer(label: "postrider_session_seconds", dimensions: [("kind", kind), ("outcome", outcome)])
      state.timers[[kind, outcome]] = made
      return made
    }
  }
}
