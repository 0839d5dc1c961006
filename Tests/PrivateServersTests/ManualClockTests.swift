import PostriderTesting
import Testing

@Suite("Manual clock")
struct ManualClockTests {
  @Test("a sleep ends when the clock reaches its deadline, not before")
  func advance() async throws {
    let clock = ManualClock()
    let sleeper = Task {
      try await clock.sleep(for: .seconds(10))
      return clock.now
    }
    await clock.waitForSleepers()
    clock.advance(by: .seconds(9))
    #expect(clock.deadlines == [ManualClock.Instant(offset: .seconds(10))])
    clock.advanceToNextDeadline()
    #expect(try await sleeper.value == ManualClock.Instant(offset: .seconds(10)))
    try await clock.sleep(until: ManualClock.Instant(offset: .seconds(3)))
  }

  @Test("a cancelled sleep throws and is forgotten")
  func cancel() async throws {
    let clock = ManualClock()
    let sleeper = Task { try await clock.sleep(for: .seconds(1)) }
    await clock.waitForSleepers()
    sleeper.cancel()
    await #expect(throws: CancellationError.self) { try await sleeper.value }
    #expect(clock.deadlines.isEmpty)
  }
}
