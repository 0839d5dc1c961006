import Foundation
import PostriderCore
import Testing

@Suite("What follows from failures of OAuth (errors table)")
struct GrantRuleTests {
  private func disposition(_ failure: Failure, before: Int = 0) -> Disposition {
    let rules = DispositionRules(
      direction: .incoming, slots: PollingSlots(mailbox: MailboxID(1), interval: .seconds(300)),
      failuresBefore: before, lastFailureCode: nil)
    var generator = SystemRandomNumberGenerator()
    return rules.failure(failure, at: Date(), using: &generator)
  }

  @Test("a consent that ended or lacks a right disables at once; a refused token is asked about once more")
  func mailbox() {
    for code in [FailureCode.oauthGrantExpired, .oauthScope, .oauthNotConnected] {
      let end = disposition(Failure(code))
      #expect(end.direction?.enabled == false && end.next.at == nil, "\(code)")
    }
    #expect(disposition(Failure(.authRejected)).direction == nil)
  }

  @Test("a token server that is down, a refused application and a missing one disable nobody, however often")
  func profile() {
    for code in [FailureCode.oauthTemporary, .oauthClient, .oauthNotConfigured] {
      let next = disposition(Failure(code), before: 100)
      #expect(next.direction == nil && next.next.at != nil, "\(code)")
      #expect(next.alerts.count == 1)
    }
    #expect(disposition(Failure(.oauthTemporary)).next.reason == "oauth.temporary")
  }
}
