import PostriderCore

/// An analysis as people read it, line by line while it goes on.
enum AnalysisText {
  /// Prints an event.
  static func say(_ event: Analysis.Event) {
    // Nobody is left to be told when this fails; the exit code still says how it went.
    try? Terminal.print(lines(event).joined(separator: "\n"))
  }

  /// The lines of an event, harmless for terminals.
  static func lines(_ event: Analysis.Event) -> [String] {
    switch event {
    case .began(let part): [Terminal.safe(heading(part))]
    case .step(let step): lines(step)
    case .ended(let part): [Terminal.safe(end(part)), ""]
    }
  }

  private static func heading(_ part: AnalysisReport.Part) -> String {
    let place = MailServer(host: part.host, port: part.port)
    let protection =
      switch part.tls {
      case .implicit: "TLS from the start"
      case .starttls: part.direction == .incoming ? "STLS" : "STARTTLS"
      case .none: "no TLS"
      }
    let login = part.userName.map { "login as \($0) (\(part.mechanism.rawValue))" } ?? "no login"
    return "\(part.direction.rawValue): \(part.protocol.uppercased()) at \(place), \(protection), \(login)"
  }

  /// `  ok       tls              31.2 ms  TLS with pop.example.com: TLS 1.3, …`; below a failure what it means.
  private static func lines(_ step: TraceStep) -> [String] {
    let mark =
      switch step.result {
      case .ok: "ok"
      case .failed: "FAILED"
      case .warning: "warning"
      case .skipped: "left out"
      }
    let name = step.name.rawValue.padding(to: 12)
    let time = step.result == .skipped ? "" : "\(Words.tenths(step.milliseconds)) ms"
    let column = String(repeating: " ", count: max(0, 11 - time.count)) + time
    let words = step.serverWords.map { ": \($0)" } ?? ""
    var lines = [Terminal.safe("  \(mark.padding(to: 8)) \(name) \(column)  \(step.tried)\(words)")]
    if let code = step.code {
      lines.append(Terminal.safe("           \(code.rawValue): \(code.summary)"))
      lines.append(Terminal.safe("           What to do: \(step.remedy ?? code.remedy)"))
    }
    return lines
  }

  private static func end(_ part: AnalysisReport.Part) -> String {
    let time = Words.duration(part.steps.reduce(0) { $0 + $1.milliseconds } / 1_000)
    let direction = part.direction.rawValue
    if let failure = part.failure {
      // A failure that no step tells, such as a refused recipient, is told here.
      let isTold = part.steps.contains { $0.code == failure.code }
      let more = isTold ? "" : ": \(failure.summary) \(failure.serverWords ?? failure.context ?? "") \(failure.remedy)"
      return "\(direction) does not work: \(failure.code.rawValue)\(more)"
    }
    return part.userName == nil
      ? "\(direction): the server answers (\(time)); nobody logged in" : "\(direction) works (\(time))"
  }
}

extension String {
  /// With blanks at the end up to a length.
  fileprivate func padding(to length: Int) -> String { self + String(repeating: " ", count: max(0, length - count)) }
}
