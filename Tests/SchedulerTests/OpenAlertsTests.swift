import PostriderCore
import Telemetry
import Testing

@testable import Scheduler

@Suite("postrider_alerts_open")
struct OpenAlertsTests {
  @Test("shown by level, and gone with the lead")
  func gauges() async {
    let registry = PrometheusRegistry()
    let alerts = OpenAlerts(factory: registry)
    #expect(await registry.scrape().isEmpty)
    alerts.show([.error: 3, .warning: 0])
    alerts.show([.error: 2, .warning: 1])
    let text = await registry.scrape()
    #expect(text.contains("postrider_alerts_open{level=\"error\"} 2\n"))
    #expect(text.contains("postrider_alerts_open{level=\"warning\"} 1\n"))
    alerts.clear()
    #expect(await registry.scrape().isEmpty)
    alerts.show([.error: 1])
    #expect(await registry.scrape().contains("postrider_alerts_open{level=\"error\"} 1\n"))
  }
}
