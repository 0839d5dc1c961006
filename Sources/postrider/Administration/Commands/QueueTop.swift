import ArgumentParser
import FoundationEssentials
import PostriderCore

/// `postrider queue top`
struct QueueTop: AdministrationCommand {
  /// By what the profiles are sorted.
  enum Order: String, ExpressibleByArgument, CaseIterable {
    case due
    case ready
    case inUse = "in-use"
    case blocked
    case errors
    case name
  }

  static let configuration = CommandConfiguration(
    commandName: "top", abstract: "Watch the queue live, profile by profile.",
    discussion: """
      DUE are rows of the schedule that are due now, READY jobs in the queue, IN USE connections and their limit (a \
      star: for all mailboxes together, else for each), ERRORS failed sessions of the last five minutes, WHY what holds \
      jobs back and until when. On a terminal it refreshes until Ctrl-C; elsewhere each refresh is a plain table.
      Example: postrider queue top --sort errors --limit 20
      Example: postrider queue top --once --json
      """)

  @Option(
    help: ArgumentHelp(
      "Highest first: due, ready, in-use, blocked or errors; or name.", discussion: "Default: ready.",
      valueName: "order"))
  var sort: Order = .ready

  @Option(
    help: ArgumentHelp(
      "Profiles to show, 1 to 10000.", discussion: "Default: as many as the screen holds, else 50.",
      valueName: "rows"))
  var limit: Int?

  @Option(help: ArgumentHelp("Seconds between refreshes, 1 to 3600.", discussion: "Default: 2.", valueName: "seconds"))
  var interval = 2

  @Flag(help: "Show it once and end.") var once = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  /// One refresh.
  struct View: Codable, Sendable {
    var time: Date
    var stats: QueueAnswer
    var profiles: [ProfileQueueView]
    /// Profiles with mailboxes in all.
    var total: Int
  }

  func validate() throws {
    if let limit, !(1...10_000).contains(limit) { throw ValidationError("--limit must be from 1 to 10000.") }
    if !(1...3_600).contains(interval) { throw ValidationError("--interval must be from 1 to 3600.") }
  }

  func execute(_ session: Session) async throws {
    let isLive = !once && !session.isJSON && Terminal.isInteractive
    var last: View?
    repeat {
      do {
        let isFirst = last == nil
        let view = try await read(session, rows: isLive ? (Terminal.height ?? 24) - Self.headLines : 50)
        last = view
        if session.isJSON {
          try Terminal.print(try JSONCoding.text(view, pretty: once))
        } else if isLive {
          try Terminal.redraw(Self.text(view, width: Terminal.width), isFirst: isFirst)
        } else {
          if !isFirst { try session.print("") }
          try session.print(Self.text(view, width: Terminal.width))
        }
      } catch let error as ClientError where isLive && last != nil && error.exitCode == 69 {
        // Whoever watches wants to see it come back.
        guard let last else { throw error }
        let words = (error.words ?? "").split(separator: "\n").first.map(String.init) ?? ""
        try Terminal.redraw("\(words); trying again\n" + Self.text(last, width: Terminal.width), isFirst: false)
      }
      if !once { try await ContinuousClock().sleep(for: .seconds(interval)) }
    } while !once
  }

  private func read(_ session: Session, rows: Int) async throws -> View {
    let stats: QueueAnswer = try await session.api.get("/queue/stats")
    let answer: QueueProfilesAnswer = try await session.api.get(
      "/queue/profiles", [("sort", sort.rawValue), ("limit", "\(limit ?? max(1, rows))")])
    return View(time: Date(), stats: stats, profiles: answer.profiles, total: answer.total)
  }

  // MARK: The screen

  /// Lines of the screen that are not profiles: three of the head, a blank one, the titles, the last one.
  private static let headLines = 6

  static func text(_ view: View, width: Int?) -> String {
    let queue = view.stats.queue
    let now = Words.date(queue.serverMilliseconds)
    let oldest = queue.oldestDueMilliseconds.values.min()
    let late = oldest.map { ", the oldest due for \(Words.duration(max(0, now.timeIntervalSince(Words.date($0)))))" }
    let blocked = Words.blocked(queue.blocked).map { ", blocked: \($0)" } ?? ""
    let head = [
      "postrider queue  \(Words.time(view.time))  \(QueueStats.rate(view.stats))  "
        + "leader: \(Terminal.safe(view.stats.schedule.leader ?? "none, nothing new is queued"))",
      "in flight  \(QueueStats.inFlight(queue))",
      "waiting    \(queue.totalReady)\(late ?? "")\(Terminal.safe(blocked))",
      "",
    ].map { line in width.map { Table.cut(line, to: $0) } ?? line }
    var table = Table(
      .flexible("PROFILE"), .number("DUE"), .number("READY"), .number("IN USE"), .number("ERRORS"), .number("OLDEST"),
      .number("BLOCKED"), .flexible("WHY"))
    for profile in view.profiles {
      let limit = profile.limit.map { "\($0)\(profile.limitIsPerProfile ? "*" : "")" } ?? "-"
      let age = profile.oldestDueMilliseconds.map { max(0, now.timeIntervalSince(Words.date($0))) }
      table.add(
        profile.name, "\(profile.due)", "\(profile.totalReady)", "\(profile.inUse)/\(limit)",
        Words.percent(profile.errorRate), age.map { Words.duration($0) } ?? "-", "\(profile.totalBlocked)",
        why(profile, now))
    }
    let rest = view.total - view.profiles.count
    let more = rest > 0 ? "\n\(Words.count(rest, "more profile"))" : ""
    return head.joined(separator: "\n") + "\n" + table.rendered(width: width) + more
  }

  /// `60 by limit, 20 by breaker until 12:00:05Z`, `paused since …`, or nothing.
  private static func why(_ profile: ProfileQueueView, _ now: Date) -> String {
    if let since = profile.pausedAt { return "paused since \(Words.time(since))" }
    let until = profile.heldUntilMilliseconds.map(Words.date).flatMap { $0 > now ? $0 : nil }
    let end = until.map { " until \(Words.time($0).suffix(9)) (\(Words.duration($0.timeIntervalSince(now))))" } ?? ""
    return (Words.blocked(profile.blocked) ?? "") + end
  }
}
