import Foundation
import PostriderCore
import PostriderTesting
import Testing

#if canImport(FoundationNetworking)
  import FoundationNetworking
#endif

/// A real Prometheus with the rules that are shipped, on ports of its own, every second.
struct PrometheusServer {
  let program: RunningProgram
  private let base: String
  private let folder: String

  /// Starts one that scrapes these ports of 127.0.0.1.
  static func start(scraping ports: [Int], port: Int, rules: String) throws -> PrometheusServer {
    let folder = "/tmp/pr-prometheus-\(UUID().uuidString.prefix(8).lowercased())"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    let targets = ports.map { "\"127.0.0.1:\($0)\"" }.joined(separator: ", ")
    try Data(
      """
      global: { scrape_interval: 1s, evaluation_interval: 1s }
      rule_files: ["\(rules)/*.yaml"]
      scrape_configs:
        - job_name: postrider
          static_configs: [{ targets: [\(targets)] }]

      """.utf8
    ).write(to: URL(fileURLWithPath: "\(folder)/prometheus.yml"))
    let program = try RunningProgram(
      [
        "--config.file=\(folder)/prometheus.yml", "--storage.tsdb.path=\(folder)/data",
        "--web.listen-address=127.0.0.1:\(port)", "--log.level=warn",
      ], executable: "/usr/bin/prometheus")
    return PrometheusServer(program: program, base: "http://127.0.0.1:\(port)/api/v1", folder: folder)
  }

  /// What an expression returns, as (labels, value); throws with Prometheus' words when it does not parse.
  func query(_ expression: String) async throws -> [(labels: [String: String], value: Double)] {
    var parts = try #require(URLComponents(string: "\(base)/query"))
    // A plus in a query would be a blank.
    parts.percentEncodedQuery =
      "query=" + (expression.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? "")
    let answer = try await get(try #require(parts.url))
    guard answer["status"] as? String == "success", let data = answer["data"] as? [String: Any] else {
      throw TestFailure("\(expression): \(answer["error"] ?? "")")
    }
    if data["resultType"] as? String == "scalar" { return [([:], 0)] }
    let results = data["result"] as? [[String: Any]] ?? []
    return results.map { result in
      let value = (result["value"] as? [Any])?.last as? String ?? ""
      return (result["metric"] as? [String: String] ?? [:], Double(value) ?? .nan)
    }
  }

  /// The rules as Prometheus has loaded them: name, expression, whether it is an alert, and its trouble.
  func rules() async throws -> [(name: String, expression: String, isAlert: Bool, error: String?)] {
    let answer = try await get(try #require(URL(string: "\(base)/rules")))
    let groups = (answer["data"] as? [String: Any])?["groups"] as? [[String: Any]] ?? []
    return groups.flatMap { $0["rules"] as? [[String: Any]] ?? [] }.map { rule in
      (
        rule["name"] as? String ?? "", rule["query"] as? String ?? "", rule["type"] as? String == "alerting",
        rule["health"] as? String == "err" ? rule["lastError"] as? String ?? "" : nil
      )
    }
  }

  private func get(_ url: URL) async throws -> [String: Any] {
    let (data, _) = try await URLSession.shared.data(from: url)
    return try JSONSerialization.jsonObject(with: data) as? [String: Any] ?? [:]
  }

  func end() async {
    program.signal(SIGTERM)
    _ = await program.exit()
    program.forget()
    try? FileManager.default.removeItem(atPath: folder)  // Left over, it harms nobody.
  }
}

@Suite("Dashboard and rules over real processes")
struct MonitoringTests {
  private static let root =
    URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().path
  static let monitoring = root + "/ops/monitoring"
  /// The table of all metrics, which is made from the code.
  private static let metricTable = root + "/Sources/Telemetry/Telemetry.docc/Telemetry.md"

  /// Queries that return nothing while all is well, each with its reason.
  static let mayBeEmpty = [
    // Marks a moment in which a version appears.
    "count by (version) (postrider_build_info) unless count by (version) (postrider_build_info offset 1m)":
      "there is one version only"
  ]
  /// Metrics of alerts that are not there while all is well.
  static let mayBeUnseen = [
    "postrider_metrics_refused_total": "counts bugs of the metrics themselves",
    "postrider_api_certificate_expires_timestamp": "the API has no TLS listener here",
  ]

  /// The dashboard's expressions with values in the place of its variables.
  private func panels() throws -> [(title: String, expression: String)] {
    let data = try Data(contentsOf: URL(fileURLWithPath: "\(Self.monitoring)/grafana/postrider.json"))
    let board = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
    var panels: [(String, String)] = []
    for panel in board["panels"] as? [[String: Any]] ?? [] {
      for target in panel["targets"] as? [[String: Any]] ?? [] {
        panels.append((panel["title"] as? String ?? "", target["expr"] as? String ?? ""))
      }
    }
    for note in (board["annotations"] as? [String: Any])?["list"] as? [[String: Any]] ?? [] {
      panels.append((note["name"] as? String ?? "", note["expr"] as? String ?? ""))
    }
    return panels.map { title, expression in
      (title, expression.replacing("$__rate_interval", with: "30s").replacing("$job", with: ".*"))
    }
  }

  /// The selectors of an expression: `name` or `name{…}`, of our metrics and the process's.
  private func selectors(_ expression: String) -> Set<String> {
    Set(expression.matches(of: /\b((?:postrider|process)[_:][\w:]+|up)(\{[^}]*\})?/).map { String($0.output.0) })
  }

  @Test("every query of the dashboard and of the rules returns data of a cluster at work")
  func queries() async throws {
    let ports = try (0..<4).map { _ in try LoopbackPort.free() }
    let development = try await Development.start(
      ["--sandbox", "--mailboxes", "2", "--api-port", "\(ports[0])"], until: "One account is free")
    // The processes of a real deployment, each with its own numbers.
    var others: [RunningProgram] = []
    for (role, port) in zip(["worker", "scheduler"], ports[1...]) {
      others.append(
        try RunningProgram(
          [role, "--data", development.directory], environment: ["POSTRIDER_PROBE_PORT": "\(port)"]))
    }
    let prometheus = try PrometheusServer.start(
      scraping: Array(ports[..<3]), port: ports[3], rules: "\(Self.monitoring)/rules")
    let up = await eventually(within: .seconds(180)) {
      // Before it listens, asking fails.
      (try? await prometheus.query("sum(up)"))?.first?.value == 3
    }
    try #require(up, "\(prometheus.program.errors)")
    for port in ports[1..<3] {
      let url = try #require(URL(string: "http://127.0.0.1:\(port)/healthz"))
      let (_, response) = try await URLSession.shared.data(from: url)
      #expect((response as? HTTPURLResponse)?.statusCode == 200)
    }
    try await someTrouble(development)

    // Sessions all the while, so that every rate has something to count.
    let polls = Task {
      while !Task.isCancelled {
        _ = try await development.cli(
          "mailbox", "poll", "user01@sandbox.test", "user02@sandbox.test", "--no-wait")
        try await Task.sleep(for: .milliseconds(300))
      }
    }
    let rules = try await loadedRules(prometheus)
    let table = try String(contentsOfFile: Self.metricTable, encoding: .utf8)
    for name in Self.mayBeUnseen.keys { #expect(table.contains("| `\(name)` |"), "\(name) is no metric") }
    for (title, expression) in try panels() where Self.mayBeEmpty[expression] == nil {
      await expectData(prometheus, expression, of: "panel \(title)")
    }
    // Those parse, and more is not asked of them.
    for expression in Self.mayBeEmpty.keys { _ = try await prometheus.query(expression) }
    for rule in rules {
      // An alert's own expression is empty in good times; what it looks at is not.
      let expressions = rule.isAlert ? selectors(rule.expression) : [rule.expression]
      #expect(!expressions.isEmpty, "\(rule.name)")
      for expression in expressions where Self.mayBeUnseen[expression] == nil {
        await expectData(prometheus, expression, of: rule.name)
      }
    }
    for rule in try await prometheus.rules() { #expect(rule.error == nil, "\(rule.name): \(rule.error ?? "")") }
    let bugs = try await prometheus.query("ALERTS{alertname=~\"PostriderQueueMended|PostriderMetricsRefused\"}")
    #expect(bugs.isEmpty, "\(bugs)")
    // On a busy machine one may have come too late once; none goes on failing.
    var failing: [(labels: [String: String], value: Double)] = []
    let allRead = try await eventually(within: .seconds(180)) {
      failing = try await prometheus.query("sum by (collector) (increase(postrider_collect_errors_total[30s])) > 0")
      return failing.isEmpty
    }
    #expect(allRead, "\(failing)")
    try await leaderAlone(prometheus, ports)

    polls.cancel()
    _ = await polls.result
    try await lint(ports[0])
    await prometheus.end()
    for other in others {
      other.signal(SIGTERM)
      #expect(await other.exit() == 0, "\(other.errors)")
      other.forget()
    }
    try await development.end()
  }

  /// A mailbox with a wrong password, for a failure and an alert.
  private func someTrouble(_ development: Development) async throws {
    let guest = "guest@sandbox.test"
    let created = try await development.cli(
      "mailbox", "create", "--address", guest, "--profile", "Sandbox", "--password-stdin", input: "wrong\n")
    try #require(created.exitCode == 0, "\(created.errors)")
    #expect(try await development.cli("mailbox", "approve", guest).exitCode == 0)
    #expect(try await development.cli("mailbox", "test", guest).exitCode == 1)
  }

  private func loadedRules(
    _ prometheus: PrometheusServer
  ) async throws -> [(name: String, expression: String, isAlert: Bool, error: String?)] {
    var rules: [(name: String, expression: String, isAlert: Bool, error: String?)] = []
    for file in ["alerts", "recording"] {
      let text = try String(contentsOfFile: "\(Self.monitoring)/rules/\(file).yaml", encoding: .utf8)
      let written = text.matches(of: #/- (?:alert|record): /#).count
      let loaded = try await prometheus.rules().filter { $0.isAlert == (file == "alerts") }
      #expect(written > 5 && loaded.count == written, "\(file).yaml")
      rules += loaded
    }
    return rules
  }

  private func expectData(_ prometheus: PrometheusServer, _ expression: String, of what: String) async {
    var trouble = ""
    let came = await eventually(within: .seconds(180)) {
      do {
        let result = try await prometheus.query(expression)
        trouble = "\(result)"
        // A quantile of nothing is no data.
        return result.contains { !$0.value.isNaN }
      } catch {
        trouble = "\(error)"
        return false
      }
    }
    #expect(came, "\(what): \(expression): \(trouble)")
  }

  /// Open alerts are shown by the process that leads and by no other, the error of the wrong password among them.
  private func leaderAlone(_ prometheus: PrometheusServer, _ ports: [Int]) async throws {
    var leaders: [String] = []
    var errors: [(labels: [String: String], value: Double)] = []
    // They are counted every 15 s; while a scrape takes too long, or another begins to lead, the two do not fit.
    let fit = try await eventually(within: .seconds(180)) {
      leaders = try await prometheus.query("postrider_scheduler_leader == 1").compactMap { $0.labels["instance"] }
      errors = try await prometheus.query("postrider_alerts_open{level=\"error\"}")
      return leaders.count == 1 && errors.contains { $0.value >= 1 }
        && errors.compactMap { $0.labels["instance"] } == leaders
    }
    #expect(fit, "\(leaders) \(errors)")
  }

  /// What `promtool check metrics` says of a page with everything.
  private func lint(_ port: Int) async throws {
    let url = try #require(URL(string: "http://127.0.0.1:\(port)/metrics"))
    let (page, _) = try await URLSession.shared.data(from: url)
    let promtool = try RunningProgram(
      ["check", "metrics"], executable: "/usr/bin/promtool", input: String(decoding: page, as: UTF8.self))
    #expect(await promtool.exit() == 0, "\(promtool.errors)\(promtool.output)")
    promtool.forget()
  }
}
