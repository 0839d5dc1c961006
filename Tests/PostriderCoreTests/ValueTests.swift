import Foundation
import PostriderCore
import Testing

@Suite("Job ids")
struct JobIDTests {
  @Test(
    "are written and read back",
    arguments: [
      (JobID(mailbox: .init(4711), kind: .poll), "4711p"), (JobID(mailbox: .init(1), kind: .test), "1t"),
      (JobID(mailbox: .init(4711), kind: .send), "4711s"),
      (JobID(mailbox: .init(4711), kind: .send, lane: 3), "4711s3"),
    ])
  func roundTrip(id: JobID, text: String) {
    #expect(id.description == text)
    #expect(JobID(text) == id)
  }

  @Test("reject anything else", arguments: ["", "p", "12", "12x", "12p1", "12s0", "-1p", "12s-1", "12 p", "1２p"])
  func rejects(text: String) { #expect(JobID(text) == nil) }
}

@Suite("Secrets")
struct SecretTests {
  @Test("never show themselves")
  func hidden() {
    let secret = Secret("canary-4711")
    var dumped = ""
    dump(secret, to: &dumped)
    #expect(!"\(secret) \(String(reflecting: secret)) \(dumped)".contains("canary"))
    #expect(!"\(Credentials(userName: "u", password: secret))".contains("canary"))
    #expect(!"\(Credentials(userName: "u", accessToken: secret))".contains("canary"))
  }
}

@Suite("Failures")
struct FailureTests {
  @Test("each code has a summary, a remedy and an unambiguous name", arguments: FailureCode.allCases)
  func table(code: FailureCode) {
    #expect(code.summary.hasSuffix("."))
    #expect(code.remedy.hasSuffix("."))
    #expect(FailureCode.allCases.count { $0.rawValue == code.rawValue } == 1)
  }

  @Test("show a server's words harmlessly")
  func presentable() {
    let failure = Failure(.authRejected, serverWords: "no\r\n\u{202E}evil\u{0}" + String(repeating: "x", count: 600))
    let words = failure.serverWords ?? ""
    #expect(words.hasPrefix("no\\u{d}\\u{a}\\u{202e}evil\\u{0}"))
    #expect(words.hasSuffix("…"))
  }
}
