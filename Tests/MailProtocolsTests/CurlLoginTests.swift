import Foundation
import MailProtocols
import PostriderCore
import PostriderTesting
import Synchronization
import Testing

@Suite(
  "Logins of curl's own tests",
  .enabled(if: !CurlDialogue.all.isEmpty, "POSTRIDER_CORPORA names no folder with dialogues"))
struct CurlLoginTests {
  /// Where we do otherwise, and why. A case here that ends like curl's fails: then the line has to go.
  private static let exceptions: [ClosedRange<Int>: String] = [
    864...864:
      "APOP: an MD5 that can be attacked (CVE-2007-1558); the password goes by USER and PASS, so only with TLS",
    869...869: noDigest, 878...878: noDigest, 881...881: noDigest, 907...907: noDigest, 934...934: noDigest,
    937...937: noDigest,
    879...880: noDowngrade, 935...936: noDowngrade,
    883...886: noExternal, 942...945: noExternal,
    891...891: "a line that ends with a bare LF is not followed further: on the way to TLS it would be an injection",
    938...938:
      "curl names the user a second time, as the one to act as; left out, it means the same (RFC 4616 section 2)",
    939...940: "a profile with credentials never sends without a login",
  ]
  private static let noDigest = "DIGEST-MD5 is historic (RFC 6331) and is not offered"
  private static let noExternal = "EXTERNAL needs a client certificate, which mail profiles do not have"
  private static let noDowngrade =
    "a server whose challenge cannot be read is left: who stands between could make it so, to see the password in the clear"

  @Test("curl and Postrider say the same and end the same, but for the listed", arguments: CurlDialogue.all)
  func replay(dialogue: CurlDialogue) async throws {
    let port = Mutex(0)
    let server = try await ScriptedMailServer.start(dialogue.steps { port.withLock { $0 } })
    port.withLock { $0 = server.port }
    let trace = SessionTrace(direction: dialogue.isSMTP ? .outgoing : .incoming)
    let endpoint = MailEndpoint(
      kind: dialogue.isSMTP ? .smtp : .pop3, host: "127.0.0.1", port: server.port, tls: .none,
      answerTimeout: .seconds(30))
    var failure: Failure?
    do {
      if dialogue.isSMTP {
        let session = try await makeClient().openSMTP(endpoint, heloName: "client.example.test", trace: trace)
        defer { session.abort() }
        try await session.authenticate(dialogue.credentials, mechanism: dialogue.setting)
      } else {
        let session = try await makeClient().openPOP3(endpoint, trace: trace)
        defer { session.abort() }
        try await session.authenticate(dialogue.credentials, mechanism: dialogue.setting)
      }
    } catch let error as Failure {
      failure = error
    }
    await server.stop()
    let sent = server.lines.filter { !["CAPA", "EHLO", "HELO", "QUIT"].contains($0.prefix(4)) }
      .flatMap { CurlDialogue.split($0) }.map { CurlDialogue.resolved($0, port: server.port) }
    // A first message that went with the command and was asked for again is one message.
    let ours = sent.indices.filter { $0 == 0 || sent[$0] != sent[$0 - 1] }.map { sent[$0] }
    let theirs = dialogue.expected.map { CurlDialogue.resolved($0, port: server.port) }
    let isSame = ours == theirs && (failure == nil) == dialogue.passes
    if let reason = Self.exceptions.first(where: { $0.key.contains(dialogue.number) })?.value {
      #expect(!isSame, "no longer an exception: \(reason)")
    } else {
      #expect(isSame, "\(ours) instead of \(theirs); \(String(describing: failure))")
    }
    #expect(failure?.code != .internalError)
    let secrets = ["secret", "xipj3plmq", "mF_9.B5f-4.1JqM"]
    #expect(!secrets.contains { "\(trace.steps) \(String(describing: failure))".contains($0) })
  }
}
