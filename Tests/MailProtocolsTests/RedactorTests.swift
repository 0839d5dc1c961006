import PostriderCore
import Testing

@testable import MailProtocols

@Suite("What a server repeats")
struct RedactorTests {
  private let token = "ya29.A0ARrdaM-4711_abcdefghijklmnopqrstuvwxyz"

  @Test("a token, its line, and both cut off")
  func tokens() {
    var redactor = Redactor()
    redactor.hide(Credentials(userName: "u", accessToken: Secret(token)))
    redactor.hide("dXNlcj11AWF1dGg9QmVhcmVyIHlhMjkuQTBBUnJkYU0tNDcxMQ==")
    let mark = Redactor.mark
    #expect(redactor.clean("bad token \(token)!") == "bad token \(mark)!")
    #expect(redactor.clean("bad token \(token.uppercased())!") == "bad token \(mark)!")
    #expect(redactor.clean("bad \(token.prefix(30))...") == "bad \(mark)...")
    #expect(redactor.clean("line dXNlcj11AWF1dGg9QmVhcmVyIHlh… is too long") == "line \(mark)… is too long")
    #expect(redactor.clean("dXNlcj11AWF1") == "dXNlcj11AWF1", "too little to be known, and to be a secret")
  }

  @Test("everything behind the verb of an echoed command, of every mechanism")
  func verbs() {
    let redactor = Redactor()
    for name in ["PLAIN", "xoauth2", "SCRAM-SHA-256", "OAUTHBEARER", "NTLM", "GSSAPI", "CRAM-MD5", "LOGIN"] {
      #expect(
        redactor.clean("AUTH failed: AUTH \(name) abc def", atLogin: true)
          == "AUTH failed: AUTH \(name) \(Redactor.mark)")
    }
    #expect(redactor.clean("-ERR AUTH needs TLS", atLogin: true) == "-ERR AUTH needs TLS")
    #expect(redactor.clean("say PASS x", atLogin: true) == "say PASS \(Redactor.mark)")
    #expect(redactor.clean("AUTH PLAIN abc") == "AUTH PLAIN abc", "only in answers to a login")
  }

  @Test("a long secret of more than ASCII, cut anywhere")
  func unicode() {
    let secret = "ünïcödé-pässwörd-ünïcödé-pässwörd-ünïcödé"
    var redactor = Redactor()
    redactor.hide(Credentials(userName: "u", password: Secret(secret)))
    #expect(redactor.clean("<\(secret)>") == "<\(Redactor.mark)>")
    for count in 14...secret.count {
      #expect(redactor.clean("<\(secret.prefix(count))").hasPrefix("<\(Redactor.mark)"))
    }
  }
}
