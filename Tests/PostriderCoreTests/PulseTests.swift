import PostriderCore
import Testing

@Suite("Pulse")
struct PulseTests {
  @Test("alive for a minute after each beat, and while it rests")
  func alive() {
    let pulse = Pulse()
    let now = ContinuousClock.now
    #expect(pulse.isAlive(at: now + .seconds(59)))
    #expect(!pulse.isAlive(at: now + .seconds(61)))
    pulse.rest()
    #expect(pulse.isAlive(at: now + .seconds(7_200)))
    pulse.beat()
    #expect(pulse.isAlive(at: .now + .seconds(59)) && !pulse.isAlive(at: .now + .seconds(61)))
  }
}
