import Foundation
import Logging
import PostgresStore
import PostriderCore

/// `bench lists`: how long a page of each list takes, wherever it stands.
struct ListsBench: Sendable {
  let command: BenchListsCommand
  let servers: BenchServers

  /// One list, filtered, from one place on.
  private struct Case: Sendable {
    var list: String
    var filter: String
    var place: String
    var ask: @Sendable (PostgresStore, Principal) async throws -> Asked

    var key: String { "\(list)_\(filter)_\(place)" }
  }

  /// What a page had.
  private struct Asked: Sendable {
    var rows: Int
    var total: Int
    var isEstimate: Bool
    var nextCursor: String?

    init<Item>(_ page: Page<Item>) {
      rows = page.items.count
      total = page.total
      isEstimate = page.totalIsEstimate ?? false
      nextCursor = page.nextCursor
    }
  }

  private struct Found: Sendable {
    var ask: Case
    var times = Samples()
    var last: Asked
  }

  func run(_ report: inout BenchReport) async throws {
    let url = try await servers.databaseURL()
    let fill = ListsFill(mailboxes: command.mailboxes, runs: command.runs)
    let organization = try await fill.create(in: url)
    report.load.merge([
      "mailboxes": .integer(command.mailboxes), "runs": .integer(command.runs), "alerts": .integer(fill.alerts),
      "samples": .integer(command.samples),
    ]) { $1 }
    let probe = try PostgresProbe(url: url)
    report.addMachine(
      "database_mib", try probe.number("SELECT pg_database_size(current_database())") / 1_048_576,
      "size of the database")
    if !(try await servers.restartPostgres()) { Bench.say("The given PostgreSQL is measured without a restart") }
    let principal = Principal(
      organizationID: organization, userID: UserID(1), name: "bench", role: .administrator)
    let found = try await measure(url, principal)
    show(found)
    try add(found, &report)
    if command.plans, let slowest = found.max(by: { $0.times.percentile(0.99) < $1.times.percentile(0.99) }) {
      try await showPlans(slowest.ask, url, principal)
    }
  }

  private func store(_ url: String) -> PostgresStore {
    PostgresStore(
      configuration: PostgresStoreConfiguration(url: url, poolSize: 4), logger: Logger(label: "postrider.bench"))
  }

  private func measure(_ url: String, _ principal: Principal) async throws -> [Found] {
    let store = store(url)
    var found: [Found] = []
    for ask in try await cases(store, principal) {
      var one = Found(ask: ask, last: try await ask.ask(store, principal))
      for _ in 0..<command.samples {
        let began = ContinuousClock.now
        one.last = try await ask.ask(store, principal)
        one.times.add(ContinuousClock.now - began)
      }
      found.append(one)
    }
    await store.close()
    return found
  }

  private func show(_ found: [Found]) {
    guard !command.options.json else { return }
    var table = Table(
      .text("List"), .text("Filter"), .text("Page"), .number("p50 ms"), .number("p99 ms"), .number("Rows"),
      .number("Total"), .text(""))
    for one in found {
      table.add(
        one.ask.list, one.ask.filter, one.ask.place, BenchReport.text(one.times.percentile(0.5)),
        BenchReport.text(one.times.percentile(0.99)), "\(one.last.rows)", "\(one.last.total)",
        one.last.isEstimate ? "estimate" : "")
    }
    Bench.say(table.rendered(width: Terminal.width))
  }

  private func add(_ found: [Found], _ report: inout BenchReport) throws {
    for list in ["mailboxes", "runs", "alerts"] {
      let slowest = found.filter { $0.ask.list == list }.max { $0.times.percentile(0.99) < $1.times.percentile(0.99) }
      guard let slowest else { throw BenchFailure(description: "no page of \(list) was asked for") }
      report.add(
        "\(list)_p99_ms", slowest.times.percentile(0.99),
        "its slowest page: \(slowest.ask.filter), \(slowest.ask.place)",
        goal: .atMost(50))
    }
  }

  // MARK: What is asked

  private func cases(_ store: PostgresStore, _ principal: Principal) async throws -> [Case] {
    try await mailboxCases(store, principal) + runCases(store, principal) + alertCases(store, principal)
  }

  private func mailboxCases(_ store: PostgresStore, _ principal: Principal) async throws -> [Case] {
    let middle = ["address": "m\(command.mailboxes / 2)@bench.test"]
    var cases: [Case] = []
    for (name, profile) in [("", nil), ("profile-", ProfileID(1))] as [(String, ProfileID?)] {
      for view in [nil] + MailboxFilter.View.allCases.map(Optional.some) {
        let label = name + (view?.rawValue ?? "all")
        func ask(_ place: String, _ sort: MailboxSort, _ cursor: String?) {
          let filter = MailboxFilter(view: view, profileID: profile, sort: sort)
          cases.append(
            Case(list: "mailboxes", filter: label, place: place) {
              Asked(try await $0.mailboxes(filter, PageRequest(cursor: cursor), for: $1))
            })
        }
        ask("first", .address, nil)
        ask("last", .addressDescending, nil)
        let next = try await store.mailboxes(
          MailboxFilter(view: view, profileID: profile), PageRequest(), for: principal)
        if let cursor = try Self.moved(next.nextCursor, key: middle, id: 0) { ask("middle", .address, cursor) }
      }
    }
    for (place, sort) in [("first", MailboxSort.updatedDescending), ("last", .updated)] {
      cases.append(
        Case(list: "mailboxes", filter: "by-change", place: place) {
          Asked(try await $0.mailboxes(MailboxFilter(sort: sort), PageRequest(), for: $1))
        })
    }
    return cases
  }

  private var middle: Int { Int((Date().timeIntervalSince1970 - 15 * 86_400) * 1_000_000) }

  private func runCases(_ store: PostgresStore, _ principal: Principal) async throws -> [Case] {
    var filters: [(String, RunFilter)] = [
      ("all", RunFilter()), ("mailbox", RunFilter(mailboxID: MailboxID(1))),
      ("poll-failure", RunFilter(kind: .poll, result: .failure)),
      ("test-partial", RunFilter(kind: .test, result: .partial)),
      ("mailbox-failure", RunFilter(mailboxID: MailboxID(1), result: .failure)),
    ]
    for kind in JobKind.allCases { filters.append((kind.word, RunFilter(kind: kind))) }
    for result in RunResult.allCases { filters.append((result.rawValue, RunFilter(result: result))) }
    var cases: [Case] = []
    for (label, filter) in filters {
      func ask(_ place: String, _ order: RowOrder, _ cursor: String?) {
        var filter = filter
        filter.order = order
        cases.append(
          Case(list: "runs", filter: label, place: place) { [filter] in
            Asked(try await $0.runs(filter, PageRequest(cursor: cursor), for: $1))
          })
      }
      ask("first", .descending, nil)
      ask("last", .ascending, nil)
      let next = try await store.runs(filter, PageRequest(), for: principal).nextCursor
      if let cursor = try Self.moved(next, key: middle, id: 0) { ask("middle", .descending, cursor) }
    }
    return cases
  }

  private func alertCases(_ store: PostgresStore, _ principal: Principal) async throws -> [Case] {
    var filters: [(String, AlertFilter)] = [("mailbox", AlertFilter(mailboxID: MailboxID(10), includeResolved: true))]
    for resolved in [false, true] {
      let state = resolved ? "with-resolved" : "open"
      filters.append((state, AlertFilter(includeResolved: resolved)))
      filters += AlertLevel.allCases.map {
        ("\(state)-\($0.rawValue)", AlertFilter(level: $0, includeResolved: resolved))
      }
    }
    var cases: [Case] = []
    for (label, filter) in filters {
      func ask(_ place: String, _ order: RowOrder, _ cursor: String?) {
        var filter = filter
        filter.order = order
        cases.append(
          Case(list: "alerts", filter: label, place: place) { [filter] in
            Asked(try await $0.alerts(filter, PageRequest(cursor: cursor), for: $1))
          })
      }
      ask("first", .descending, nil)
      ask("last", .ascending, nil)
      let next = try await store.alerts(filter, PageRequest(), for: principal).nextCursor
      if let cursor = try Self.moved(next, key: middle, id: 0) { ask("middle", .descending, cursor) }
    }
    return cases
  }

  /// A list's own cursor, moved to another place: walking to the middle of ten million rows would take minutes.
  private static func moved(_ cursor: String?, key: Any, id: Int64) throws -> String? {
    guard let cursor else { return nil }
    var base64 = cursor.replacing("-", with: "+").replacing("_", with: "/")
    while base64.utf8.count % 4 != 0 { base64 += "=" }
    guard let data = Data(base64Encoded: base64),
      var object = try JSONSerialization.jsonObject(with: data) as? [String: Any]
    else { throw BenchFailure(description: "the cursor of a page cannot be read") }
    object["key"] = key
    object["id"] = id
    let text = try JSONSerialization.data(withJSONObject: object).base64EncodedString()
    return text.replacing("+", with: "-").replacing("/", with: "_").replacing("=", with: "")
  }

  // MARK: Plans

  /// Asks once more on new connections that write their plans into PostgreSQL's log.
  private func showPlans(_ ask: Case, _ url: String, _ principal: Principal) async throws {
    guard let log = servers.postgresLog else { return Bench.say("Plans are read from a private PostgreSQL's log only") }
    let database = try PostgresProbe(url: url)
    try database.run(
      """
      LOAD 'auto_explain';
      DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET session_preload_libraries = auto_explain', current_database());
        EXECUTE format('ALTER DATABASE %I SET auto_explain.log_min_duration = 0', current_database());
        EXECUTE format('ALTER DATABASE %I SET auto_explain.log_analyze = on', current_database());
        EXECUTE format('ALTER DATABASE %I SET auto_explain.log_buffers = on', current_database());
      END $$
      """)
    let before = try Data(contentsOf: URL(fileURLWithPath: log)).count
    let store = store(url)
    _ = try await ask.ask(store, principal)
    await store.close()
    let text = String(decoding: try Data(contentsOf: URL(fileURLWithPath: log)).dropFirst(before), as: UTF8.self)
    Bench.say("Plans of \(ask.key):\n\(text)")
  }
}
