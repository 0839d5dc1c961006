import FoundationEssentials
import MailProtocols
import PostriderCore

/// The last part of test & enable: the message that a mailbox has sent to itself comes back over POP3 (features T3).
///
/// What does not come back is a warning and no failure: servers deliver when they like, and Gmail keeps a mailbox's own
/// mail from POP3 altogether.
struct RoundTrip {
  /// Headers of at most so many messages are read in one look; the newest ones, which servers list last.
  private static let newestMessages = 20
  /// The wait after each look; the last one again and again.
  private static let pauses: [Duration] = [.milliseconds(300), .seconds(1), .seconds(2), .seconds(5)]
  /// The alert of a message that did not come back.
  static let alertCode = "mailbox.round-trip"
  private static let remedy = """
    Incoming and outgoing mail work each by itself. Check that the address belongs to the account that POP3 opens, and \
    whether a filter or spam folder took the message. Gmail does not show a mailbox its own messages over POP3: with the \
    user name recent:ADDRESS it does.
    """

  let context: SessionContext
  let task: SessionTask
  /// Of the message, without angle brackets.
  let messageID: String
  /// When its server took it.
  let sentAt: Date

  /// What a look at the maildrop showed.
  private enum Look {
    case found(uidl: String)
    case nothing
    /// The server shows no headers without handing out whole messages.
    case impossible
  }

  /// Looks until the message is there or the time is over. Returns the step, and what follows of it.
  ///
  /// Throws what a session does not decide: cancellation, a lost queue or database, a late writer.
  func step() async throws -> (step: TraceStep, alert: AlertChange?) {
    let wait =
      task.isInteractive ? context.configuration.roundTripWait : min(context.configuration.roundTripWait, .seconds(10))
    let end = ContinuousClock.now + wait
    var seen: Set<String> = []
    var looks = 0
    var problem: Failure?
    while true {
      do {
        looks += 1
        switch try await look(&seen) {
        case .found(let uidl):
          // Not even fetched by the next poll.
          try await context.store.skip([uidl: .own], writer: task.writer)
          let often = looks == 1 ? "at the first look" : "at look \(looks)"
          return (made(.ok, "the message to \(task.settings.address) came back, \(often)"), nil)
        case .nothing: problem = nil
        case .impossible:
          return (made(.skipped, "the server offers no TOP, so the message is not looked for"), nil)
        }
      } catch let failure as Failure {
        // Such as a maildrop that another client holds: it has just been opened, so it can be again.
        problem = failure
      } catch let wait as ServerWait {
        problem = wait.breaker.failure
      }
      let pause = Self.pauses[min(looks, Self.pauses.count) - 1]
      if ContinuousClock.now + pause >= end { break }
      try await Task.sleep(for: pause)
    }
    let seconds = Int((wait / .seconds(1)).rounded())
    var tried = "the message to \(task.settings.address) was not seen within \(seconds) s"
    if let problem { tried += "; the last look failed: \(problem.code.rawValue)" }
    let draft = AlertDraft(
      level: .warning, code: Self.alertCode, text: "The test's message did not come back within \(seconds) s.",
      remedy: Self.remedy, parameters: ["direction": Direction.incoming.rawValue, "seconds": String(seconds)])
    return (made(.warning, tried, remedy: Self.remedy), .raise(draft))
  }

  private func made(_ result: StepResult, _ tried: String, remedy: String? = nil) -> TraceStep {
    TraceStep(
      direction: .incoming, name: .roundTrip, tried: tried, result: result, startedAt: sentAt,
      milliseconds: result == .skipped ? 0 : Date().timeIntervalSince(sentAt) * 1_000, remedy: remedy)
  }

  /// One session. Its own steps are no news: the test has just shown all of them.
  private func look(_ seen: inout Set<String>) async throws -> Look {
    let session = try await context.signInPOP3(task, trace: SessionTrace(direction: .incoming))
    do {
      // Of any number only the last ones are kept.
      var newest: [POP3Entry] = []
      try await session.list { page in newest = (newest + page).suffix(Self.newestMessages) }
      await context.servers.proved(task, .incoming)
      let new = newest.filter { !seen.contains($0.uidl.text) }
      var result = Look.nothing
      if !session.capabilities.top, !new.isEmpty { result = .impossible }
      for entry in new.reversed() where session.capabilities.top {
        let header = try await session.top(entry.number, lines: 0)
        seen.insert(entry.uidl.text)
        if holds(header) {
          result = .found(uidl: entry.uidl.text)
          break
        }
      }
      // Nothing was removed: how the server takes its leave changes nothing.
      try? await session.quit()
      return result
    } catch {
      session.abort()
      throw error
    }
  }

  /// Whether a header is the message's: its Message-ID, or the mark that survives servers that write an ID of their own.
  private func holds(_ header: [UInt8]) -> Bool {
    let text = String(decoding: header, as: UTF8.self)
    if text.contains("<\(messageID)>") { return true }
    return text.split(whereSeparator: \.isNewline).contains {
      $0.lowercased().hasPrefix("x-postrider-test:") && $0.split(separator: ":").last.map(bare) == "\(task.lease.fence)"
    }
  }

  private func bare(_ value: Substring) -> String { String(value.drop { $0 == " " }) }
}
