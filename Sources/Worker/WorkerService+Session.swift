import FoundationEssentials
import Logging
import PostriderCore

extension WorkerService {
  /// What becomes of the lease of a session that has ended.
  private enum Ending {
    case complete
    case giveBack
  }

  /// Runs one session under its lease, commits its outcome and ends the lease – in this order, so that a crash in
  /// between only polls again.
  func run(_ task: SessionTask) async {
    metrics.started(task)
    let ending = await ending(of: task)
    await servers.abandon(task)
    switch ending {
    case .complete: finisher.complete(task.lease)
    case .giveBack: finisher.giveBack(task.lease)
    }
  }

  private func ending(of task: SessionTask) async -> Ending {
    do {
      let startedAt = Date()
      let (outcome, result) = try await keeper.hold(task.lease, deadline: task.settings.sessionDeadline) {
        do {
          return try await session(task)
        } catch let error as FencedError {
          // Counted here: the end of the lease, which makes a write late, must not hide it.
          metrics.fenced()
          throw error
        } catch StoreError.unavailable(let reason) {
          // The job is ready again as soon as it is given back, so a database that refuses only some statements must
          // not make a mail server see one login after the other.
          try await Task.sleep(for: .milliseconds(Int.random(in: 500...1_500)))
          throw StoreError.unavailable(reason: reason)
        } catch let error as JobQueueError {
          // The server guard does not answer, or is refused to this user: the same.
          try await Task.sleep(for: .milliseconds(Int.random(in: 500...1_500)))
          throw error
        } catch let wait as ServerWait {
          // While the lease is held: once it is given back, the job is claimed again at once unless its lane waits.
          await servers.hold(task, wait)
          throw wait
        }
      } then: { outcome in
        // Without an outcome it outlived its deadline. Only now the work is over, and its last step recorded.
        var decided: SessionOutcome
        if let outcome { decided = outcome } else { decided = await outlived(task, from: startedAt) }
        decided.profileVersion = task.settings.profileVersion
        #if DEBUG
          if Mistakes.completeBeforeCommit { await Mistakes.end(task.lease, in: queue) }
        #endif
        let result = try await commit(decided, task.lease)
        if result == .fenced { metrics.fenced() }
        return (decided, result)
      }
      metrics.finished(outcome, result)
      log(outcome, result)
      return .complete
    } catch Interruption.leaseLost {
      metrics.interrupted(task, "lost-lease")
      // The socket is closed. A lease that was withdrawn, or that is not taken back yet, need not last to its end.
      return .giveBack
    } catch is FencedError {
      // A newer session or a change of profile came before: nothing was written, and nothing must be.
      return .complete
    } catch is ServerWait {
      metrics.interrupted(task, "breaker")
      return .giveBack
    } catch {
      // Stopped, or the database went away before anything was decided: somebody does it again.
      metrics.interrupted(task, "given-back")
      if !(error is CancellationError) && !(error is Interruption) {
        logger.warning("A session is given back", metadata: ["job.id": "\(task.lease.job)", "error": "\(error)"])
      }
      return .giveBack
    }
  }

  private func session(_ task: SessionTask) async throws -> SessionOutcome {
    if let standIn { return try await standIn(task.lease, task.assignment) }
    return switch task.lease.job.kind {
    case .poll: try await PollSession(context: context, task: task).outcome()
    case .test: try await TestSession(context: context, task: task).outcome()
    case .send: try await SendSession(context: context, task: task).outcome()
    }
  }

  /// The outcome of a session that took longer than its deadline: it tells what was really done.
  private func outlived(_ task: SessionTask, from startedAt: Date) async -> SessionOutcome {
    let failure = Failure(.sessionDeadline, context: "\(task.settings.sessionDeadline)")
    let counts = task.progress.counts
    if let uidl = counts.underWay {
      // Unwritten, it is only not behind the others the next time.
      try? await store.postpone([uidl], failure, writer: task.writer)
    }
    var breaker: OpenBreaker?
    for direction in Direction.allCases {
      let open = await servers.leave(
        task, direction, failure, progress: counts.stored + counts.known + counts.sent > 0)
      breaker = breaker ?? open
    }
    return task.failed(failure, breaker, from: startedAt)
  }

  /// Commits, waiting for a database that is away for as long as the lease is held.
  private func commit(_ outcome: SessionOutcome, _ lease: Lease) async throws -> OutcomeResult {
    var trouble = Trouble()
    while true {
      do {
        return try await store.commit(outcome)
      } catch StoreError.unavailable(let reason) {
        let error = StoreError.unavailable(reason: reason)
        let wait = trouble.wait(after: error)
        if trouble.isNew { logger.warning("An outcome waits for PostgreSQL", metadata: ["error": "\(error)"]) }
        try await Task.sleep(for: wait)
        if let interruption = keeper.interruption(of: lease) { throw interruption }
      }
    }
  }

  private func log(_ outcome: SessionOutcome, _ result: OutcomeResult) {
    // Thousands a second: the words are made only when somebody reads them.
    guard outcome.run.failure != nil || logger.logLevel <= .debug else { return }
    var metadata: Logger.Metadata = [
      "job.id": "\(outcome.writer.job)", "mailbox.id": "\(outcome.run.mailboxID)",
      "run.result": "\(outcome.run.result.rawValue)", "messages": "\(outcome.run.messagesStored)",
    ]
    if case .written(let id) = result { metadata["run.id"] = "\(id)" } else { metadata["fenced"] = "true" }
    if let failure = outcome.run.failure {
      metadata["error.kind"] = "\(failure.code.rawValue)"
      logger.info("A session failed", metadata: metadata)
    } else {
      logger.debug("A session is done", metadata: metadata)
    }
  }
}
