import PostriderCore
import Testing

@testable import MailProtocols

@Suite("Which login is chosen")
struct LoginChoiceTests {
  private static let everything: Set<String> = [
    "PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER", "NTLM", "GSSAPI",
    "SCRAM-SHA-256-PLUS", "DIGEST-MD5", "EXTERNAL", "ANONYMOUS",
  ]
  private static let token = Credentials(userName: "anna", accessToken: Secret("token"))
  private static let worker = Credentials(userName: "anna", proof: .workerIdentity)

  /// The name of what is chosen, or the code of the failure.
  private func chosen(
    _ credentials: Credentials, _ setting: AuthenticationMechanism = .auto, offered: Set<String>, user: Bool = true,
    isSecure: Bool = true
  ) -> (pop3: String, smtp: String) {
    var capabilities = POP3Capabilities(lines: [])
    capabilities.sasl = offered
    capabilities.user = user
    var extensions = SMTPExtensions()
    extensions.authenticationMechanisms = offered
    let target = LoginTarget(service: "pop", host: "mail.example.test", port: 995, isSecure: isSecure)
    func name(_ body: () throws -> String) -> String {
      do { return try body() } catch { return (error as? Failure)?.code.rawValue ?? "\(error)" }
    }
    return (
      name { try POP3LoginChoice.choose(credentials, setting, capabilities, target).name },
      name { try SMTPLoginChoice.choose(credentials, setting, extensions, target).name }
    )
  }

  @Test(
    "auto with a password walks down from the strongest; without TLS nothing goes in the clear",
    arguments: [true, false])
  func ladder(isSecure: Bool) {
    let order =
      isSecure
      ? ["SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN", "CRAM-MD5"] : ["SCRAM-SHA-256", "SCRAM-SHA-1", "CRAM-MD5"]
    var offered = Self.everything
    for name in order {
      let choice = chosen(anna, offered: offered, user: false, isSecure: isSecure)
      #expect(choice == (name, name))
      offered.remove(name)
    }
    // What is left is never taken by itself.
    #expect(
      chosen(anna, offered: offered, user: false, isSecure: isSecure) == ("auth.no-mechanism", "auth.no-mechanism"))
    let userPass = isSecure ? "USER and PASS" : "auth.no-mechanism"
    #expect(chosen(anna, offered: offered, isSecure: isSecure).pop3 == userPass)
    #expect(chosen(anna, offered: ["LOGIN"], isSecure: isSecure).pop3 == userPass)
  }

  @Test("a profile that names a mechanism in the clear gets it, also without TLS")
  func clearText() {
    #expect(chosen(anna, .plain, offered: ["PLAIN"], isSecure: false) == ("PLAIN", "PLAIN"))
    #expect(chosen(anna, .plain, offered: [], isSecure: false).pop3 == "USER and PASS")
    #expect(chosen(anna, .login, offered: ["LOGIN"], isSecure: false) == ("LOGIN", "LOGIN"))
  }

  @Test("who left the choice open without TLS is told what to set")
  func clearTextRemedy() {
    let target = LoginTarget(service: "pop", host: "mail.example.test", port: 110, isSecure: false)
    let failure = #expect(throws: Failure.self) {
      try POP3LoginChoice.choose(anna, .auto, POP3Capabilities(lines: ["USER", "SASL PLAIN"]), target)
    }
    #expect(failure?.context?.contains("set the authentication protocol to `plain`") == true)
  }

  @Test("a token goes by the mechanisms for tokens alone, whatever else is offered")
  func token() {
    #expect(chosen(Self.token, offered: Self.everything) == ("OAUTHBEARER", "OAUTHBEARER"))
    #expect(chosen(Self.token, offered: ["PLAIN", "LOGIN", "XOAUTH2"]) == ("XOAUTH2", "XOAUTH2"))
    #expect(chosen(Self.token, .xoauth2, offered: Self.everything).smtp == "XOAUTH2")
    #expect(chosen(Self.token, offered: ["PLAIN", "LOGIN", "SCRAM-SHA-256"]).pop3 == "auth.no-mechanism")
    for setting in AuthenticationMechanism.allCases where ![.auto, .xoauth2, .oauthbearer].contains(setting) {
      #expect(chosen(Self.token, setting, offered: Self.everything) == ("auth.no-mechanism", "auth.no-mechanism"))
    }
  }

  @Test(
    "a mechanism that was asked for is taken, or nothing",
    arguments: [
      (AuthenticationMechanism.cramMD5, "CRAM-MD5"), (.scramSHA1, "SCRAM-SHA-1"), (.scramSHA256, "SCRAM-SHA-256"),
      (.ntlm, "NTLM"), (.login, "LOGIN"), (.plain, "PLAIN"),
    ])
  func explicit(setting: AuthenticationMechanism, name: String) {
    #expect(chosen(anna, setting, offered: Self.everything) == (name, name))
    let without = chosen(anna, setting, offered: Self.everything.subtracting([name]))
    #expect(without.smtp == "auth.no-mechanism")
    #expect(without.pop3 == (setting == .plain ? "USER and PASS" : "auth.no-mechanism"))
  }

  @Test("the worker's own identity logs in by GSSAPI alone; a password and a token never do")
  func worker() {
    #expect(chosen(Self.worker, offered: Self.everything) == ("GSSAPI", "GSSAPI"))
    #expect(chosen(Self.worker, .gssapi, offered: Self.everything).smtp == "GSSAPI")
    #expect(chosen(Self.worker, .plain, offered: Self.everything).smtp == "auth.no-mechanism")
    #expect(chosen(Self.worker, offered: ["PLAIN"]).pop3 == "auth.no-mechanism")
    #expect(chosen(anna, .gssapi, offered: Self.everything).pop3 == "auth.no-mechanism")
    #expect(chosen(anna, .xoauth2, offered: Self.everything).pop3 == "auth.no-mechanism")
  }

  @Test("an authorization identity goes only where it is carried, and is never dropped")
  func identity() {
    var boss = anna
    boss.authorizationIdentity = "boss"
    #expect(chosen(boss, offered: Self.everything) == ("PLAIN", "PLAIN"))
    #expect(
      chosen(boss, offered: ["LOGIN", "CRAM-MD5", "SCRAM-SHA-256"]) == ("auth.no-mechanism", "auth.no-mechanism"))
    #expect(chosen(boss, .login, offered: Self.everything).pop3 == "auth.no-mechanism")
    var token = Self.token
    token.authorizationIdentity = "boss"
    #expect(chosen(token, offered: Self.everything).pop3 == "OAUTHBEARER")
  }

  @Test("values that would end or alter what they stand in are refused before anything is sent")
  func dangerous() {
    for text in ["a\r\nb", "a\nb", "a\u{0}b"] {
      #expect(throws: Failure.self) { try CommandValue.check(Credentials(userName: text, password: Secret("p"))) }
      #expect(throws: Failure.self) { try CommandValue.check(Credentials(userName: "u", password: Secret(text))) }
      #expect(throws: Failure.self) { try CommandValue.check(Credentials(userName: "u", accessToken: Secret(text))) }
      #expect(throws: Failure.self) {
        try CommandValue.check(Credentials(userName: "u", password: Secret("p"), authorizationIdentity: text))
      }
    }
    for token in ["", "a\u{1}b", "a b", "ä"] {
      #expect(throws: Failure.self) { try CommandValue.check(Credentials(userName: "u", accessToken: Secret(token))) }
    }
    #expect(throws: Failure.self) {
      try CommandValue.check(Credentials(userName: "u\u{1}auth=Bearer x", accessToken: Secret("t")))
    }
    #expect(throws: Never.self) {
      try CommandValue.check(Credentials(userName: "u", accessToken: Secret("a.b-c_d~e+f/g=")))
    }
  }
}
