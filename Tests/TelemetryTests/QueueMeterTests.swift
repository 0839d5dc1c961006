import PostriderCore
import Testing

@testable import Telemetry

@Suite("What readings of the queue say about the time between them")
struct QueueMeterTests {
  private func reading(
    _ seconds: Double, finished: Int, inFlight: Int = 0, epoch: Int64 = 1
  ) -> QueueStatistics {
    QueueStatistics(
      inFlight: inFlight, finished: finished, epoch: epoch, serverMilliseconds: Int64(seconds * 1_000))
  }

  @Test("one reading says nothing, two say a rate")
  func rate() {
    var meter = QueueMeter()
    meter.add(reading(10, finished: 500))
    #expect(meter.jobsPerSecond == nil && meter.meanSessionSeconds == nil)
    meter.add(reading(12, finished: 700, inFlight: 0))
    #expect(meter.jobsPerSecond == 100)
  }

  @Test("the rate is of the last ten seconds, not of the whole past")
  func window() {
    var meter = QueueMeter()
    for second in 0...60 { meter.add(reading(Double(second), finished: second < 40 ? second * 1_000 : 40_000)) }
    #expect(meter.jobsPerSecond == 0)
  }

  @Test("readings far apart still give a rate")
  func scrapes() {
    var meter = QueueMeter()
    meter.add(reading(0, finished: 0, inFlight: 20))
    meter.add(reading(30, finished: 300, inFlight: 20))
    #expect(meter.jobsPerSecond == 10)
    #expect(meter.meanSessionSeconds == 2, "20 in flight, 10 a second")
  }

  @Test("a new epoch counts from zero: no rate over it, never a negative one")
  func epoch() {
    var meter = QueueMeter()
    meter.add(reading(10, finished: 5_000))
    meter.add(reading(15, finished: 6_000))
    meter.add(reading(20, finished: 3, epoch: 2))
    #expect(meter.jobsPerSecond == nil)
    meter.add(reading(25, finished: 53, epoch: 2))
    #expect(meter.jobsPerSecond == 10)
    meter.add(reading(30, finished: 10, epoch: 2))
    #expect(meter.jobsPerSecond == nil)
  }

  @Test("the mean session stays while no session ends")
  func standstill() {
    var meter = QueueMeter()
    meter.add(reading(0, finished: 0, inFlight: 50))
    meter.add(reading(5, finished: 50, inFlight: 50))
    #expect(meter.meanSessionSeconds == 5)
    for second in stride(from: 10.0, through: 60, by: 5) { meter.add(reading(second, finished: 50, inFlight: 50)) }
    #expect(meter.jobsPerSecond == 0 && meter.meanSessionSeconds != nil)
  }

  @Test("the same reading twice changes nothing")
  func twice() {
    var meter = QueueMeter()
    meter.add(reading(0, finished: 0))
    meter.add(reading(2, finished: 20))
    meter.add(reading(2, finished: 20))
    #expect(meter.jobsPerSecond == 10)
  }
}
