import Foundation
import Logging
import Metrics
import Synchronization
import Testing

@testable import Telemetry

@Suite("Prometheus registry")
struct PrometheusRegistryTests {
  let registry = PrometheusRegistry(maximumSeries: 3)

  func scrape() async throws -> Exposition { try Exposition(await registry.scrape()) }

  @Test("swift-metrics' instruments become counters, gauges and histograms")
  func instruments() async throws {
    Counter(label: "postrider_messages_total", dimensions: [("direction", "incoming")], factory: registry)
      .increment(by: 3)
    Counter(label: "postrider_messages_total", dimensions: [("direction", "incoming")], factory: registry)
      .increment(by: 4)
    FloatingPointCounter(label: "postrider_message_bytes_total", factory: registry).increment(by: 1.5)
    Gauge(label: "postrider_scheduler_leader", factory: registry).record(1)
    let meter = Meter(label: "postrider_breaker_open", factory: registry)
    meter.set(5)
    meter.decrement(by: 1.5)
    let timer = Timer(label: "postrider_dispatch_delay_seconds", factory: registry)
    timer.recordMilliseconds(200)
    timer.recordSeconds(7_200)
    Recorder(
      label: "postrider_session_seconds", dimensions: [("outcome", "success"), ("kind", "poll")], factory: registry
    ).record(0.7)

    let page = try await scrape()
    #expect(page["postrider_messages_total"]?.type == "counter")
    #expect(page.value("postrider_messages_total", ["direction": "incoming"]) == 7)
    #expect(page.value("postrider_message_bytes_total") == 1.5)
    #expect(page["postrider_scheduler_leader"]?.type == "gauge")
    #expect(page.value("postrider_scheduler_leader") == 1)
    #expect(page.value("postrider_breaker_open") == 3.5)
    #expect(page["postrider_dispatch_delay_seconds"]?.type == "histogram")
    #expect(page.value("postrider_dispatch_delay_seconds_count") == 2)
    #expect(page.value("postrider_dispatch_delay_seconds_sum") == 7_200.2)
    #expect(page.value("postrider_dispatch_delay_seconds_bucket", ["le": "0.1"]) == 0)
    #expect(page.value("postrider_dispatch_delay_seconds_bucket", ["le": "0.25"]) == 1)
    #expect(page.value("postrider_dispatch_delay_seconds_bucket", ["le": "3600"]) == 1)
    #expect(page.value("postrider_dispatch_delay_seconds_bucket", ["le": "+Inf"]) == 2)
    #expect(page.value("postrider_session_seconds_sum", ["kind": "poll", "outcome": "success"]) == 0.7)
    #expect(page["postrider_metrics_refused_total"] == nil)
  }

  @Test("other label keys, another type and too many series are dropped and counted")
  func refusals() async throws {
    Counter(label: "postrider_messages_total", dimensions: [("mailbox", "7")], factory: registry).increment()
    Counter(label: "postrider_messages_total", factory: registry).increment()
    Gauge(label: "postrider_messages_total", dimensions: [("direction", "x")], factory: registry).record(1)
    for number in 0..<5 {
      Counter(label: "postrider_messages_total", dimensions: [("direction", "\(number)")], factory: registry)
        .increment()
    }
    let page = try await scrape()
    #expect(page["postrider_messages_total"]?.samples.count == 3)
    #expect(page.value("postrider_metrics_refused_total", ["reason": "labels"]) == 2)
    #expect(page.value("postrider_metrics_refused_total", ["reason": "type"]) == 1)
    #expect(page.value("postrider_metrics_refused_total", ["reason": "series"]) == 2)
  }

  @Test("names of libraries are mapped, and their labels must stay the same too")
  func libraryNames() async throws {
    Counter(label: "http.server.requests", dimensions: [("http.route", "/a")], factory: registry).increment()
    Counter(label: "http.server.requests", dimensions: [("other", "/a")], factory: registry).increment()
    Timer(label: "http.server.request.duration", factory: registry).recordNanoseconds(1_500_000_000)
    Gauge(label: "2nd.things_total", factory: registry).record(2)
    let page = try await scrape()
    #expect(page.value("http_server_requests_total", ["http_route": "/a"]) == 1)
    #expect(page.value("http_server_request_duration_seconds_sum") == 1.5)
    #expect(page.value("_2nd_things") == 2)
    #expect(page.value("postrider_metrics_refused_total", ["reason": "labels"]) == 1)
  }

  @Test("label values and help are escaped, odd numbers are written as Prometheus reads them")
  func escaping() async throws {
    let odd = PrometheusRegistry(definitions: [MetricDefinition("odd", .gauge, labels: ["v"], help: "a\\b\nc")])
    for (text, value) in [("quote\" slash\\ line\nend", 1.0), ("plus", .infinity), ("nan", .nan), ("small", 1e-9)] {
      Gauge(label: "odd", dimensions: [("v", text)], factory: odd).record(value)
    }
    let text = await odd.scrape()
    #expect(text.contains("# HELP odd a\\\\b\\nc\n"))
    let page = try Exposition(text)
    #expect(page.value("odd", ["v": "quote\" slash\\ line\nend"]) == 1)
    #expect(page.value("odd", ["v": "plus"]) == .infinity)
    #expect(page.value("odd", ["v": "nan"])?.isNaN == true)
    #expect(page.value("odd", ["v": "small"]) == 1e-9)
    #expect(text.contains("odd{v=\"plus\"} +Inf\n"))
  }

  @Test("a counter never shrinks; a destroyed gauge is gone")
  func odds() async throws {
    let counter = Counter(label: "postrider_results_fenced_total", factory: registry)
    counter.increment(by: 2)
    counter.increment(by: -1)
    let meter = Meter(label: "postrider_breaker_open", factory: registry)
    meter.set(1)
    #expect(try await scrape().value("postrider_breaker_open") == 1)
    meter.destroy()
    let page = try await scrape()
    #expect(page.value("postrider_results_fenced_total") == 2)
    #expect(page["postrider_breaker_open"] == nil)
  }

  @Test("nothing is lost when many tasks record at once")
  func concurrency() async throws {
    await withTaskGroup(of: Void.self) { group in
      for _ in 0..<8 {
        group.addTask { [registry] in
          for _ in 0..<1_000 {
            Counter(label: "postrider_leases_reclaimed_total", factory: registry).increment()
            Timer(label: "postrider_store_batch_seconds", factory: registry).recordMilliseconds(3)
          }
        }
      }
    }
    let page = try await scrape()
    #expect(page.value("postrider_leases_reclaimed_total") == 8_000)
    #expect(page.value("postrider_store_batch_seconds_count") == 8_000)
  }

  @Test("build information")
  func buildInfo() async throws {
    registry.setBuildInfo(version: "1.2.3", commit: "abc", swift: "6.3")
    let labels = ["version": "1.2.3", "commit": "abc", "swift": "6.3"]
    #expect(try await scrape().value("postrider_build_info", labels) == 1)
  }

  @Test(
    "promtool finds nothing to complain about",
    .enabled(if: FileManager.default.isExecutableFile(atPath: "/usr/bin/promtool")))
  func promtool() async throws {
    registry.setBuildInfo(version: "1", commit: "a", swift: "6")
    Timer(label: "postrider_dispatch_delay_seconds", factory: registry).recordSeconds(1)
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/promtool")
    process.arguments = ["check", "metrics"]
    let input = Pipe()
    process.standardInput = input
    try process.run()
    try input.fileHandleForWriting.write(contentsOf: Data(await registry.scrape().utf8))
    try input.fileHandleForWriting.close()
    process.waitUntilExit()
    #expect(process.terminationStatus == 0)
  }
}

@Suite("Collectors")
struct CollectorTests {
  struct Down: Error {}

  @Test("a failing collector drops its gauges and raises the error counter; the others stay")
  func failing() async throws {
    let registry = PrometheusRegistry(collectorTimeLimit: .seconds(60))
    let isDown = Mutex(false)
    registry.addCollector("alerts", [MetricNames.alertsOpen]) {
      if isDown.withLock({ $0 }) { throw Down() }
      return [MetricSample(MetricNames.alertsOpen, ["level": "error"], value: 4)]
    }
    registry.addCollector("breakers", [MetricNames.breakerOpen]) { [MetricSample(MetricNames.breakerOpen, value: 2)] }
    var page = try Exposition(await registry.scrape())
    #expect(page.value("postrider_alerts_open", ["level": "error"]) == 4)
    #expect(page.value("postrider_collect_errors_total", ["collector": "alerts"]) == 0)

    isDown.withLock { $0 = true }
    page = try Exposition(await registry.scrape())
    #expect(page["postrider_alerts_open"] == nil)
    #expect(page.value("postrider_breaker_open") == 2)
    #expect(page.value("postrider_collect_errors_total", ["collector": "alerts"]) == 1)
    #expect(page.value("postrider_collect_errors_total", ["collector": "breakers"]) == 0)

    isDown.withLock { $0 = false }
    page = try Exposition(await registry.scrape())
    #expect(page.value("postrider_alerts_open", ["level": "error"]) == 4)
    #expect(page.value("postrider_collect_errors_total", ["collector": "alerts"]) == 1)
  }

  @Test("what is dropped is logged once for each metric, a collector at each failure")
  func logged() async throws {
    let log = LineLogHandlerTests.Lines()
    let registry = PrometheusRegistry(collectorTimeLimit: .seconds(60), logger: log.logger(.text))
    for mailbox in 0..<3 {
      Counter(label: "postrider_messages_total", dimensions: [("mailbox", "\(mailbox)")], factory: registry).increment()
    }
    registry.addCollector("alerts", [MetricNames.alertsOpen]) { throw Down() }
    for _ in 0..<2 { _ = await registry.scrape() }
    let dropped = log.lines.filter { $0.contains("A metric does not fit and is dropped") }
    #expect(dropped.count == 1 && dropped.first?.contains("postrider_messages_total") == true, "\(log.lines)")
    let failed = log.lines.filter { $0.contains("A collector failed and its metrics are missing from this scrape") }
    #expect(failed.count == 2 && failed.first?.contains("metric.collector=alerts") == true, "\(log.lines)")
  }

  @Test("a collector that hangs costs one time limit, does not pile up, and recovers")
  func hanging() async throws {
    let registry = PrometheusRegistry(collectorTimeLimit: .milliseconds(50))
    let (gate, opening) = AsyncStream<Void>.makeStream()
    let calls = Mutex(0)
    registry.addCollector("breakers", [MetricNames.breakerOpen]) {
      calls.withLock { $0 += 1 }
      // Deaf to cancellation, as a blocking call is.
      await Task.detached { for await _ in gate { break } }.value
      return [MetricSample(MetricNames.breakerOpen, value: 2)]
    }
    var page = try Exposition(await registry.scrape())
    #expect(page["postrider_breaker_open"] == nil)
    // Its task may begin later than the first scrape gave up.
    try await eventually { calls.withLock { $0 } == 1 }
    page = try Exposition(await registry.scrape())
    #expect(page.value("postrider_collect_errors_total", ["collector": "breakers"]) == 2)
    #expect(calls.withLock { $0 } == 1)
    opening.finish()
    try await eventually { try Exposition(await registry.scrape()).value("postrider_breaker_open") == 2 }
  }

  @Test("samples of other metrics or labels are dropped")
  func foreign() async throws {
    let registry = PrometheusRegistry(collectorTimeLimit: .seconds(60))
    registry.addCollector("alerts", [MetricNames.alertsOpen]) {
      [
        MetricSample(MetricNames.alertsOpen, ["level": "error"], value: 1),
        MetricSample(MetricNames.alertsOpen, ["mailbox": "7"], value: 1),
        MetricSample(MetricNames.breakerOpen, value: 2),
      ]
    }
    let page = try Exposition(await registry.scrape())
    #expect(page["postrider_alerts_open"]?.samples.count == 1)
    #expect(page["postrider_breaker_open"] == nil)
    #expect(page.value("postrider_metrics_refused_total", ["reason": "labels"]) == 1)
    #expect(page.value("postrider_metrics_refused_total", ["reason": "type"]) == 1)
  }

  @Test("the same name again replaces the collector; removing it removes its metrics")
  func replacing() async throws {
    let registry = PrometheusRegistry(collectorTimeLimit: .seconds(60))
    for number in 1...2 {
      registry.addCollector("b", [MetricNames.breakerOpen]) {
        [MetricSample(MetricNames.breakerOpen, value: Double(number))]
      }
    }
    #expect(try Exposition(await registry.scrape()).value("postrider_breaker_open") == 2)
    registry.removeCollector("b")
    #expect(try Exposition(await registry.scrape())["postrider_breaker_open"] == nil)
  }
}

@Suite("Metric names")
struct MetricNamesTests {
  @Test("every name fits the rules of Prometheus", arguments: MetricNames.all)
  func rules(_ metric: MetricDefinition) {
    #expect(metric.name.hasPrefix("postrider_"))
    #expect(PrometheusRegistry.mapped(metric.name) == metric.name)
    #expect(metric.name.hasSuffix("_total") == (metric.kind == .counter))
    #expect(metric.help.hasSuffix("."))
    #expect(metric.kind == .histogram ? metric.name.hasSuffix("_seconds") : metric.buckets.isEmpty)
    #expect(metric.buckets == metric.buckets.sorted() && Set(metric.buckets).count == metric.buckets.count)
    #expect(!metric.labels.contains { ["mailbox", "address", "account", "host", "le"].contains($0) })
    #expect(MetricNames.markdownTable().contains("| `\(metric.name)` | \(metric.kind.rawValue) |"))
  }

  /// The page is written anew where POSTRIDER_WRITE_DOCS is set.
  @Test("the documentation has the table as it is")
  func documentation() throws {
    let page = URL(filePath: #filePath).deletingLastPathComponent()
      .appending(path: "../../Sources/Telemetry/Telemetry.docc/Telemetry.md").standardizedFileURL
    let text = try String(contentsOf: page, encoding: .utf8)
    let introduction = text.prefix { $0 != "|" }
    let wanted = introduction + MetricNames.markdownTable()
    if ProcessInfo.processInfo.environment["POSTRIDER_WRITE_DOCS"] != nil {
      try wanted.write(to: page, atomically: true, encoding: .utf8)
    } else {
      #expect(text == wanted)
    }
  }

  @Test("there is each name once")
  func unique() { #expect(Set(MetricNames.all.map(\.name)).count == MetricNames.all.count) }
}

/// Waits for a condition, with a deadline.
func eventually(_ condition: () async throws -> Bool) async throws {
  let deadline = ContinuousClock.now + .seconds(60)
  while ContinuousClock.now < deadline {
    if try await condition() { return }
    try await Task.sleep(for: .milliseconds(5))
  }
  Issue.record("the condition did not become true")
}

@Suite("Process metrics")
struct ProcessCollectorTests {
  @Test(
    "memory, processor time, open files and start time", .enabled(if: FileManager.default.fileExists(atPath: "/proc")))
  func samples() async throws {
    let registry = PrometheusRegistry(collectorTimeLimit: .seconds(60))
    ProcessCollector.register(in: registry)
    let page = try Exposition(await registry.scrape())
    #expect(try #require(page.value("process_resident_memory_bytes")) > 1_000_000)
    #expect(try #require(page.value("process_cpu_seconds_total")) >= 0)
    #expect(try #require(page.value("process_open_fds")) >= 3)
    #expect(try #require(page.value("process_start_time_seconds")) > 1_700_000_000)
  }
}
