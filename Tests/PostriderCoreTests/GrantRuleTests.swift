import Foundation
import PostriderCore
import Testing

@Suite("What follows from failures of OAuth (errors table)")
struct GrantRuleTests {
  private func disposition(_ failure: Failure, before: Int = 0, last: FailureCode? = nil) -> Disposition {
    let rules = DispositionRules(
      direction: .incoming, slots: PollingSlots(mailbox: MailboxID(1), interval: .seconds(300)),
      failuresBefore: before, lastFailureCode: last)
    var generator = SystemRandomNumberGenerator()
    return rules.failure(failure, at: Date(), using: &generator)
  }

  @Test("a consent that lacks a right or is another application's disables at once")
  func final() {
    for code in [FailureCode.oauthScope, .oauthReplaced, .oauthNotConnected] {
      let end = disposition(Failure(code))
      #expect(end.direction?.enabled == false && end.next.at == nil, "\(code)")
    }
  }

  @Test("a consent that ended and a refused token are asked about once more, and by that mailbox itself")
  func confirmed() {
    for code in [FailureCode.oauthGrantExpired, .authRejected] {
      let first = disposition(Failure(code), before: 3, last: .tcpClosed)
      #expect(first.direction == nil && first.failures == 4 && first.alerts.count == 1, "\(code)")
      let wait = first.next.at?.timeIntervalSinceNow ?? 0
      // Later than the keeper's memory of the refusal, so that the token server is asked.
      #expect((295...361).contains(wait), "\(code)")
      for last in [FailureCode.oauthGrantExpired, .authRejected, .authRejectedUnspecified] {
        let second = disposition(Failure(code), before: 1, last: last)
        #expect(second.direction?.enabled == false && second.next.at == nil, "\(code) \(last)")
      }
      for last in [FailureCode.authMassRejection, .oauthMassRejection] {
        #expect(disposition(Failure(code), before: 1, last: last).direction == nil, "\(code) \(last)")
      }
    }
  }

  @Test("a token server that is down, a refused application and a missing one disable nobody, however often")
  func profile() {
    for code in [FailureCode.oauthTemporary, .oauthMassRejection, .oauthClient, .oauthNotConfigured] {
      let next = disposition(Failure(code), before: 100)
      #expect(next.direction == nil && next.next.at != nil, "\(code)")
      #expect(next.alerts.count == 1)
    }
    #expect(disposition(Failure(.oauthTemporary)).next.reason == "oauth.temporary")
  }
}
