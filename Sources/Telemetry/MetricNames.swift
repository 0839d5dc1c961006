/// Every metric of Postrider, once: the exporter takes type, help, labels and buckets from here, the documentation is
/// ``markdownTable()``.
///
/// Code records through swift-metrics with the same name and label keys, such as
/// `Counter(label: "postrider_messages_total", dimensions: [("direction", "incoming")])`.
public enum MetricNames {
  /// Jobs that wait, by class; includes those held back by a limit.
  public static let queueReady = MetricDefinition(
    "postrider_queue_ready", .gauge, labels: ["class"],
    help: "Jobs that wait in the queue, by class, including those that a limit holds back.")
  /// Waiting jobs that no worker may take now, by reason.
  public static let queueBlocked = MetricDefinition(
    "postrider_queue_blocked", .gauge, labels: ["reason"],
    help:
      "Waiting jobs that no worker may take now, by reason (limit, busy-mailbox, paused, or a hold such as breaker); more workers cannot help them."
  )
  /// Age of the oldest waiting job, by class; 0 when there is none.
  public static let queueOldestDueSeconds = MetricDefinition(
    "postrider_queue_oldest_due_seconds", .gauge, labels: ["class"],
    help: "Seconds since the oldest waiting job of a class became due; 0 when none waits.")
  /// Jobs that workers hold.
  public static let queueInflight = MetricDefinition(
    "postrider_queue_inflight", .gauge, help: "Jobs that workers hold by a lease.")
  /// Leases completed.
  public static let queueFinished = MetricDefinition(
    "postrider_queue_finished_total", .counter,
    help: "Leases that workers completed since the queue's epoch began; starts again at 0 with a new one.")
  /// Jobs set aside.
  public static let queuePoisoned = MetricDefinition(
    "postrider_queue_poisoned", .gauge,
    help: "Jobs set aside after three reclaims that the scheduler has not taken out of the queue yet.")
  /// Live workers.
  public static let queueWorkers = MetricDefinition(
    "postrider_queue_workers", .gauge, help: "Workers that announced themselves within the last 15 seconds.")
  /// What the live workers can do at once.
  public static let queueWorkerSlots = MetricDefinition(
    "postrider_queue_worker_slots", .gauge, help: "Sessions that the live workers can run at once, together.")
  /// What an autoscaler should aim at.
  public static let workersWanted = MetricDefinition(
    "postrider_workers_wanted", .gauge,
    help: "Workers that the work at hand wants, as GET /api/v1/scale says; what a limit blocks does not count.")
  /// The end of the API's certificate.
  public static let certificateExpires = MetricDefinition(
    "postrider_api_certificate_expires_timestamp", .gauge,
    help: "When the certificate that the API serves ends, in seconds since 1970; not there without TLS.")
  /// Start of a session minus its due time.
  public static let dispatchDelaySeconds = MetricDefinition(
    "postrider_dispatch_delay_seconds", .histogram,
    buckets: [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600],
    help: "Seconds from a job's due time to the start of its session.")
  /// Length of a session.
  public static let sessionSeconds = MetricDefinition(
    "postrider_session_seconds", .histogram, labels: ["kind", "outcome"],
    buckets: [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600],
    help: "Seconds that a session with a mail server took, by kind of job and outcome.")
  /// Finished jobs.
  public static let jobsFinished = MetricDefinition(
    "postrider_jobs_finished_total", .counter, labels: ["kind", "outcome", "error_class"],
    help: "Finished jobs by kind, outcome and class of the failure (empty for none).")
  /// Messages received or sent.
  public static let messages = MetricDefinition(
    "postrider_messages_total", .counter, labels: ["direction"], help: "Messages stored (incoming) or sent (outgoing).")
  /// Octets of stored messages.
  public static let messageBytes = MetricDefinition(
    "postrider_message_bytes_total", .counter, help: "Octets of the messages stored.")
  /// Leases taken back from dead workers.
  public static let leasesReclaimed = MetricDefinition(
    "postrider_leases_reclaimed_total", .counter, help: "Leases taken back because they were not renewed in time.")
  /// Results refused because a newer session has written.
  public static let resultsFenced = MetricDefinition(
    "postrider_results_fenced_total", .counter,
    help: "Results that were refused because a newer session of the mailbox had begun.")
  /// Repairs of the queue by the scheduler.
  public static let invariantRepairs = MetricDefinition(
    "postrider_invariant_repairs_total", .counter,
    help: "Differences between schedule and queue that the scheduler repaired.")
  /// Servers whose circuit breaker is open.
  public static let breakerOpen = MetricDefinition(
    "postrider_breaker_open", .gauge, help: "Mail servers whose circuit breaker is open.")
  /// Breakers that opened or closed.
  public static let breakerChanges = MetricDefinition(
    "postrider_breaker_changes_total", .counter, labels: ["change"],
    help: "Breakers of mail servers opened and closed, profiles halted and resumed, by sessions of this worker.")
  /// Sessions that had to wait for their server.
  public static let sessionsRefused = MetricDefinition(
    "postrider_sessions_refused_total", .counter, labels: ["reason"],
    help: "Sessions that did not connect (breaker, halted) or not log in (login-budget) and wait.")
  /// Open alerts by level.
  public static let alertsOpen = MetricDefinition(
    "postrider_alerts_open", .gauge, labels: ["level"], help: "Alerts that are open, by level.")
  /// Slots of a worker, by state.
  public static let workerSlots = MetricDefinition(
    "postrider_worker_slots", .gauge, labels: ["state"], help: "Session slots of this worker by state, busy and total.")
  /// Whether this scheduler leads.
  public static let schedulerLeader = MetricDefinition(
    "postrider_scheduler_leader", .gauge, help: "1 when this scheduler leads, else 0.")
  /// How far the scheduler is behind.
  public static let scheduleLagSeconds = MetricDefinition(
    "postrider_schedule_lag_seconds", .gauge,
    help: "Seconds by which the oldest due row that is not enqueued yet is late.")
  /// Calls of Redis.
  public static let redisCallSeconds = MetricDefinition(
    "postrider_redis_call_seconds", .histogram, labels: ["script"],
    buckets: [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5],
    help: "Seconds that a call of Redis took, by script.")
  /// Batches written to PostgreSQL.
  public static let storeBatchSeconds = MetricDefinition(
    "postrider_store_batch_seconds", .histogram,
    buckets: [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    help: "Seconds that a batch of outcomes took to be committed.")
  /// Which build this is; always 1.
  public static let buildInfo = MetricDefinition(
    "postrider_build_info", .gauge, labels: ["version", "commit", "swift"],
    help: "Always 1; the labels say which build runs.")
  /// Jobs put into the queue.
  public static let jobsEnqueued = MetricDefinition(
    "postrider_jobs_enqueued_total", .counter,
    help: "Jobs that the scheduler put into the queue and that were not there.")
  /// Jobs that were completed without a session.
  public static let jobsSkipped = MetricDefinition(
    "postrider_jobs_skipped_total", .counter, labels: ["reason"],
    help: "Claimed jobs that were not due, not enabled or moved any more, and were completed without a session.")
  /// Leases that a worker lost.
  public static let leasesLost = MetricDefinition(
    "postrider_leases_lost_total", .counter, help: "Sessions that were ended because their lease was lost.")
  /// Tokens refreshed.
  public static let tokenRefreshes = MetricDefinition(
    "postrider_token_refreshes_total", .counter, labels: ["result"],
    help: "Refreshes of OAuth access tokens that this worker made, by result: success, failure.")
  /// Events delivered to webhooks.
  public static let webhookDeliveries = MetricDefinition(
    "postrider_webhook_deliveries_total", .counter, labels: ["result"],
    help: "Attempts to deliver an event to a webhook, by result: delivered, failed (tried again), dead (given up).")
  /// Failed collections at scrape.
  public static let collectErrors = MetricDefinition(
    "postrider_collect_errors_total", .counter, labels: ["collector"],
    help: "Collections that failed at a scrape; their gauges are missing from it.")
  /// Metrics that the registry would not take.
  public static let metricsRefused = MetricDefinition(
    "postrider_metrics_refused_total", .counter, labels: ["reason"],
    help: "Metrics that were dropped because of other label keys, another type or too many series: a bug.")

  /// All of them, by name.
  public static let all: [MetricDefinition] = [
    queueReady, queueBlocked, queueOldestDueSeconds, queueInflight, queueFinished, queuePoisoned, queueWorkers,
    queueWorkerSlots, workersWanted, certificateExpires, dispatchDelaySeconds, sessionSeconds, jobsFinished,
    messages, messageBytes, leasesReclaimed, resultsFenced, invariantRepairs, breakerOpen, alertsOpen, workerSlots,
    breakerChanges, sessionsRefused, schedulerLeader, scheduleLagSeconds, redisCallSeconds, storeBatchSeconds,
    buildInfo, jobsEnqueued,
    jobsSkipped, leasesLost, collectErrors, metricsRefused, tokenRefreshes, webhookDeliveries,
  ].sorted { $0.name < $1.name }

  /// The table of the documentation, in Markdown.
  public static func markdownTable() -> String {
    var lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for metric in all {
      let labels = metric.labels.isEmpty ? "" : metric.labels.map { "`\($0)`" }.joined(separator: ", ")
      lines.append("| `\(metric.name)` | \(metric.kind.rawValue) | \(labels) | \(metric.help) |")
    }
    return lines.joined(separator: "\n") + "\n"
  }
}
