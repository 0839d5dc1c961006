import Crypto
import Foundation
import PostriderCore
import Testing

@testable import MailProtocols

/// Drives an exchange by hand, computing in place; messages are shown decoded.
struct ExchangeDriver {
  var exchange: SASLExchange
  var lines: [String] = []
  var secrets: [String] = []

  init(_ mechanism: any SASLMechanism, commandLimit: Int = 255) {
    exchange = SASLExchange(mechanism, commandLimit: commandLimit)
  }

  /// The text of the last line, decoded where it is base64.
  var last: String {
    let text = lines.last?.split(separator: " ").last.map(String.init) ?? ""
    return SASLBase64.decode(text).map { String(decoding: $0, as: UTF8.self) } ?? text
  }

  mutating func begin() throws { try take(exchange.begin()) }
  mutating func challenge(_ text: String) throws { try take(exchange.challenge(text)) }
  mutating func challenge(text: String) throws { try challenge(SASLBase64.encode(Array(text.utf8))) }

  private mutating func take(_ first: SASLExchange.Move) throws {
    var move = first
    while case .compute(let computation) = move { move = try exchange.computed(computation.run()) }
    if case .send(let line, let hidden) = move {
      lines.append(line)
      secrets += hidden
    }
  }
}

@Suite("SASL mechanisms")
struct SASLMechanismTests {
  private func code(_ body: () throws -> Void) -> FailureCode? {
    do {
      try body()
      return nil
    } catch { return (error as? Failure)?.code }
  }

  /// What this thread has had of the processor: while others have it, nothing counts.
  private func processorTime() -> Duration {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return .seconds(Int(time.tv_sec)) + .nanoseconds(Int(time.tv_nsec))
  }

  @Test("CRAM-MD5: the example of RFC 2195")
  func cram() throws {
    let mechanism = try CRAMMD5Mechanism(userName: "tim", password: Secret("tanstaaftanstaaf"))
    var driver = ExchangeDriver(mechanism)
    try driver.begin()
    try driver.challenge("PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+")
    #expect(driver.lines == ["AUTH CRAM-MD5", "dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw"])
    #expect(driver.secrets.contains("b913a602c7eda7a495b4e6e7334d3890"))
    try driver.exchange.succeeded()
    var again = ExchangeDriver(try CRAMMD5Mechanism(userName: "tim", password: Secret("tanstaaftanstaaf")))
    try again.begin()
    #expect(code { try again.exchange.succeeded() } == .protocolSyntax)
    try again.challenge("")
    #expect(again.lines.last == "*", "an empty challenge would give one digest for all time")
  }

  @Test("the reference server holds the examples of RFC 5802 and RFC 7677")
  func reference() throws {
    let sha1 = SCRAMServer<Insecure.SHA1>(
      password: "pencil", salt: Array(Data(base64Encoded: "QSXCR+Q6sek8bf92") ?? Data()), nonce: "3rfcNHYJY1ZVvWVs7j")
    let first = "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL"
    #expect(sha1.first(first) == "r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096")
    let end = sha1.final(
      clientFirst: first, serverFirst: sha1.first(first),
      clientFinal: "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=")
    #expect(end.isProven && end.message == "v=rmF9pqV8S7suAoZWja4dJRkFsKQ=")
    let sha256 = SCRAMServer<SHA256>(
      password: "pencil", salt: Array(Data(base64Encoded: "W22ZaJ0SNY7soEsUEjb6gQ==") ?? Data()),
      nonce: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    let other = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    let last = sha256.final(
      clientFirst: other, serverFirst: sha256.first(other),
      clientFinal: "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        + "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    #expect(last.isProven && last.message == "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")
  }

  @Test(
    "SCRAM agrees with the reference server",
    arguments: SCRAMMechanism.Hash.allCases,
    [("user", "pencil", nil), ("a,b=c", "p,=ä§", nil), ("user", "pencil", "boss@example.com")])
  func scram(hash: SCRAMMechanism.Hash, who: (name: String, password: String, identity: String?)) throws {
    switch hash {
    case .sha1: try scram(hash, who.name, who.password, who.identity, Insecure.SHA1.self)
    case .sha256: try scram(hash, who.name, who.password, who.identity, SHA256.self)
    }
  }

  private func scram<Hash: HashFunction>(
    _ hash: SCRAMMechanism.Hash, _ name: String, _ password: String, _ identity: String?, _: Hash.Type
  ) throws {
    let server = SCRAMServer<Hash>(password: password, salt: Array("some salt".utf8))
    var driver = ExchangeDriver(
      try SCRAMMechanism(hash, userName: name, password: Secret(password), authorizationIdentity: identity, host: "h"))
    try driver.begin()
    let first = driver.last
    let escaped = name.replacing("=", with: "=3D").replacing(",", with: "=2C")
    #expect(first.hasPrefix("n,\(identity.map { "a=\($0)" } ?? ""),n=\(escaped),r="))
    #expect(driver.lines[0].hasPrefix("AUTH \(hash.rawValue) "))
    let serverFirst = server.first(first)
    try driver.challenge(text: serverFirst)
    let final = server.final(clientFirst: first, serverFirst: serverFirst, clientFinal: driver.last)
    #expect(final.isProven)
    #expect(driver.secrets.contains { driver.last.hasSuffix("p=" + $0) }, "the proof is a secret")
    // Nothing before the signature is believed.
    #expect(code { try driver.exchange.succeeded() } == .authServerUnproven)
    try driver.challenge(text: final.message)
    #expect(driver.lines.last == "")
    try driver.exchange.succeeded()
  }

  private func waiting() throws -> (driver: ExchangeDriver, first: String) {
    var driver = ExchangeDriver(try SCRAMMechanism(.sha256, userName: "user", password: Secret("pencil"), host: "h"))
    try driver.begin()
    return (driver, driver.last)
  }

  private func answered() throws -> (driver: ExchangeDriver, final: String) {
    let server = SCRAMServer<SHA256>(password: "pencil", salt: Array("salt".utf8))
    var (driver, first) = try waiting()
    try driver.challenge(text: server.first(first))
    return (
      driver,
      server.final(clientFirst: first, serverFirst: server.first(first), clientFinal: driver.last).message
    )
  }

  @Test("a wrong signature, none, and what is no signature")
  func unproven() throws {
    for wrong in ["v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", "v=", "x=1", "", "v"] {
      var driver = try answered().driver
      #expect(code { try driver.challenge(text: wrong) } == .authServerUnproven, "\(wrong)")
    }
    var (driver, final) = try answered()
    #expect(code { try driver.exchange.succeeded() } == .authServerUnproven)
    // A signature twice, or anything behind it, is not followed.
    try driver.challenge(text: final)
    try driver.challenge(text: final)
    #expect(driver.lines.last == "*")
    #expect(code { try driver.exchange.succeeded() } == .protocolSyntax)
  }

  @Test("the next login of the account is not hashed again; another password, salt or count is")
  func saltedPasswords() throws {
    let cache = SaltedPasswords(capacity: 2)
    /// Logs in; returns whether the server believed it and how much of the processor the client needed for its proof.
    func login(_ password: String, _ server: SCRAMServer<SHA256>, user: String = "user") throws -> (Bool, Duration) {
      var driver = ExchangeDriver(
        try SCRAMMechanism(.sha256, userName: user, password: Secret(password), host: "h", cache: cache))
      try driver.begin()
      let first = driver.last
      let start = processorTime()
      try driver.challenge(text: server.first(first))
      let time = processorTime() - start
      let final = server.final(clientFirst: first, serverFirst: server.first(first), clientFinal: driver.last)
      if final.isProven { try driver.challenge(text: final.message) }
      return (final.isProven, time)
    }
    let server = SCRAMServer<SHA256>(password: "pencil", salt: Array("salt".utf8), iterations: 20_000)
    let (isIn, slow) = try login("pencil", server)
    #expect(isIn && cache.count == 1)
    let (isInAgain, fast) = try login("pencil", server)
    #expect(isInAgain && fast < slow / 4, "\(fast) after \(slow)")
    #expect(try login("wrong", server).0 == false, "the password is part of what is kept")
    #expect(try login("pencil", server).0, "a failed login replaces nothing")
    let salted = SCRAMServer<SHA256>(password: "pencil", salt: Array("pepper".utf8), iterations: 4_096)
    #expect(try login("pencil", salted).0 && cache.count == 1)
    let counted = SCRAMServer<SHA256>(password: "pencil", salt: Array("pepper".utf8), iterations: 5_000)
    #expect(try login("pencil", counted).0 && cache.count == 1)
    for user in ["a", "b", "c"] { #expect(try login("pencil", counted, user: user).0) }
    #expect(cache.count == 2)
  }

  @Test("an error in the last message is answered, so that the server's own one comes")
  func scramError() throws {
    var driver = try answered().driver
    try driver.challenge(text: "e=invalid-proof")
    #expect(driver.lines.last == "")
    let failure = driver.exchange.refused(Failure(.authRejectedUnspecified, context: "login was refused")) { $0 }
    #expect(failure.code == .authRejected && failure.context?.contains("invalid-proof") == true)
    #expect(code { try driver.exchange.succeeded() } == .authServerUnproven)
  }

  @Test(
    "a server's first message",
    arguments: [
      ("r=%xx,s=c2FsdA==,i=1000001", FailureCode.protocolLimit),
      ("r=%xx,s=c2FsdA==,i=99999999999999999999", .protocolLimit),
      ("r=%xx,s=c2FsdA==,i=4095", .authNoMechanism), ("r=%xx,s=c2FsdA==,i=1", .authNoMechanism),
      ("r=%,s=c2FsdA==,i=4096", .authServerUnproven), ("r=other,s=c2FsdA==,i=4096", .authServerUnproven),
      ("r=%xx,s=,i=4096", .protocolSyntax), ("r=%xx,s=?,i=4096", .protocolSyntax),
      ("r=%xx,s=c2FsdA==", .protocolSyntax),
      ("r=%xx,s=c2FsdA==,i=-4096", .protocolSyntax), ("r=%xx,s=c2FsdA==,i=04096", .protocolSyntax),
      ("m=x,r=%xx,s=c2FsdA==,i=4096", .protocolSyntax), ("r=%xx,s=c2FsdA==,i=4096\0", .protocolSyntax),
      ("s=c2FsdA==,r=%xx,i=4096", .protocolSyntax), ("", .protocolSyntax), ("e=other-error", .protocolSyntax),
    ])
  func serverFirst(text: String, expected: FailureCode) throws {
    var (driver, first) = try waiting()
    let nonce = first.split(separator: ",").last?.dropFirst(2) ?? ""
    // An empty one first asks for the message again.
    if text.isEmpty { try driver.challenge("") }
    let started = processorTime()
    #expect(code { try driver.challenge(text: text.replacing("%", with: nonce)) } == expected)
    #expect(processorTime() - started < .milliseconds(250), "it was refused before anything was computed")
  }

  @Test("the most rounds that are allowed, and a mandatory extension behind them")
  func rounds() throws {
    let first = try SCRAMServerFirst(Array("r=abcd,s=c2FsdA==,i=1000000,x=1".utf8), clientNonce: "abc")
    #expect(first.iterations == 1_000_000)
  }

  @Test("XOAUTH2: always in two steps; the refusal is answered with an empty line")
  func xoauth2() throws {
    var driver = ExchangeDriver(XOAuth2Mechanism(userName: "user", accessToken: Secret("mF_9.B5f-4.1JqM")))
    try driver.begin()
    #expect(driver.lines == ["AUTH XOAUTH2"])
    #expect(code { try driver.exchange.succeeded() } == .protocolSyntax)
    try driver.challenge("XOAUTH2 supported")
    #expect(driver.last == "user=user\u{1}auth=Bearer mF_9.B5f-4.1JqM\u{1}\u{1}")
    try driver.exchange.succeeded()
    try driver.challenge(text: #"{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}"#)
    #expect(driver.lines.last == "")
    let failure = driver.exchange.refused(
      Failure(.authRejectedUnspecified, serverWords: "-ERR no", context: "login was refused")
    ) { $0 }
    #expect(failure.code == .authRejected && failure.serverWords == "-ERR no")
    #expect(failure.context?.contains("status 400, scope https://mail.google.com/") == true)
    #expect(code { try driver.exchange.succeeded() } == .protocolSyntax)
  }

  @Test("OAUTHBEARER: the example of RFC 7628, names with commas, refusals")
  func oauthbearer() throws {
    let mechanism = OAuthBearerMechanism(
      identity: "user@example.com", accessToken: Secret("vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="),
      host: "server.example.com", port: 143)
    var driver = ExchangeDriver(mechanism)
    try driver.begin()
    try driver.challenge("")
    #expect(
      driver.lines == [
        "AUTH OAUTHBEARER",
        "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyIHZGOWRmdDRxbVRjMk52Yj"
          + "NSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB",
      ])
    try driver.challenge(text: #"{"status":"insufficient_scope","scope":"mail"}"#)
    #expect(driver.lines.last == "AQ==")
    #expect(driver.exchange.refused(Failure(.authRejected)) { $0 }.code == .oauthScope)
    // What the server's last answer says for sure is not replaced.
    #expect(driver.exchange.refused(Failure(.pop3InUse)) { $0 }.code == .pop3InUse)
    var odd = ExchangeDriver(
      OAuthBearerMechanism(identity: "a,b=c", accessToken: Secret("t"), host: "h", port: 1))
    try odd.begin()
    try odd.challenge("")
    #expect(odd.last.hasPrefix("n,a=a=2Cb=3Dc,\u{1}host=h"))
    for refusal in ["e30=", "bm90IGpzb24=", "%%%", "eyJzdGF0dXMiOjQwMX0="] {
      var driver = odd
      try driver.challenge(refusal)
      #expect(driver.lines.last == "AQ==")
      #expect(code { try driver.exchange.succeeded() } == .protocolSyntax)
    }
  }

  @Test("the first message goes with the command where it fits, and again where the server did not read it there")
  func initial() throws {
    let plain = PlainMechanism(anna)
    let encoded = "AGFubmEAY29ycmVjdCBob3JzZQ=="
    for prompt in ["", "PLAIN supported"] {
      var driver = ExchangeDriver(plain)
      try driver.begin()
      try driver.challenge(prompt)
      #expect(driver.lines == ["AUTH PLAIN \(encoded)", encoded])
      try driver.exchange.succeeded()
      try driver.challenge(prompt)
      #expect(driver.lines.last == "*")
      #expect(code { try driver.challenge(prompt) } == .protocolLimit)
    }
    // 2 octets for CRLF.
    let needed = "AUTH PLAIN \(encoded)".utf8.count + 2
    for (limit, fits) in [(needed, true), (needed - 1, false)] {
      var driver = ExchangeDriver(plain, commandLimit: limit)
      try driver.begin()
      #expect(driver.lines == [fits ? "AUTH PLAIN \(encoded)" : "AUTH PLAIN"])
    }
  }

  @Test("endless challenges, and an answer that is too long for a line")
  func limits() throws {
    var driver = ExchangeDriver(OAuthBearerMechanism(identity: "u", accessToken: Secret("t"), host: "h", port: 1))
    try driver.begin()
    for _ in 1...16 { try driver.challenge("") }
    #expect(code { try driver.challenge("") } == .protocolLimit)
    let token = Secret(String(repeating: "t", count: 9_500))
    var long = ExchangeDriver(XOAuth2Mechanism(userName: "u", accessToken: token))
    try long.begin()
    #expect(code { try long.challenge("") } == .protocolLimit)
  }

  @Test("after our own cancellation the credentials are not to blame")
  func cancelled() throws {
    var driver = ExchangeDriver(try CRAMMD5Mechanism(userName: "u", password: Secret("p")))
    try driver.begin()
    try driver.challenge("Rubbish")
    #expect(driver.lines.last == "*")
    let failure = driver.exchange.refused(Failure(.authRejectedUnspecified, serverWords: "-ERR cancelled")) { $0 }
    #expect(failure.code == .protocolSyntax && failure.serverWords == "-ERR cancelled")
  }

  @Test("characters that SASLprep forbids never reach the server")
  func saslprep() throws {
    var driver = ExchangeDriver(
      try SCRAMMechanism(.sha1, userName: "bad\u{E000}name", password: Secret("p"), host: "h"))
    #expect(code { try driver.begin() } == .authRejected)
    #expect(driver.lines.isEmpty)
  }

  // Message 2 and both responses from curl's own tests (user `testuser`, password `testpass`).
  private static let ntlmChallenge =
    "TlRMTVNTUAACAAAAAgACADAAAACGggEAc51AYVDgyNcAAAAAAAAAAG4AbgAyAAAAQ0MCAAQAQwBDAAEAEgBFAEwASQBTAEEAQgBFAFQASAAEABgAY"
    + "wBjAC4AaQBjAGUAZABlAHYALgBuAHUAAwAsAGUAbABpAHMAYQBiAGUAdABoAC4AYwBjAC4AaQBjAGUAZABlAHYALgBuAHUAAAAAAA=="

  @Test("NTLM: the responses to a recorded challenge")
  func ntlm() throws {
    var driver = ExchangeDriver(try NTLMMechanism(userName: "testuser", password: Secret("testpass")))
    try driver.begin()
    let first = try #require(SASLBase64.decode(driver.lines[0].replacing("AUTH NTLM ", with: "")))
    #expect(first.starts(with: Array("NTLMSSP\0\u{1}\0\0\0".utf8)))
    try driver.challenge(Self.ntlmChallenge)
    let message = try #require(SASLBase64.decode(driver.lines[1]))
    #expect(message.starts(with: Array("NTLMSSP\0\u{3}\0\0\0".utf8)))
    func field(at index: Int) -> [UInt8] {
      let length = Int(message[index]) | Int(message[index + 1]) << 8
      let offset = Int(message[index + 4]) | Int(message[index + 5]) << 8
      return Array(message[offset..<offset + length])
    }
    #expect(field(at: 12) == SASLBase64.decode("WmRDApEJkUyGOPS3DjvASModEeW/N/FB"))
    #expect(field(at: 20) == SASLBase64.decode("qYVyF4y6/y/7F6qmEQ7lXjXFF3tH1145"))
    try driver.exchange.succeeded()
  }

  @Test("NTLM: challenges that lie about their parts")
  func ntlmChallenges() throws {
    let good = try #require(SASLBase64.decode(Self.ntlmChallenge))
    #expect(NTLMChallenge.checked(good)?.count == 50)
    func changed(_ index: Int, _ value: UInt8) -> [UInt8] {
      var message = good
      message[index] = value
      return message
    }
    let bad = [
      [], Array(good.prefix(31)), changed(0, 0), changed(8, 3), changed(12, 1), changed(13, 0x7F), changed(17, 0xFF),
      changed(19, 0xFF),
    ]
    for message in bad { #expect(NTLMChallenge.checked(message) == nil) }
    // Without a target: the shortest there is.
    var short = Array(good.prefix(32))
    short[12] = 0
    #expect(NTLMChallenge.checked(short)?.count == 48)
    var driver = ExchangeDriver(try NTLMMechanism(userName: "u", password: Secret("p")))
    try driver.begin()
    // The first could be the request of a server that did not read the message with the command.
    for _ in 1...2 { try driver.challenge("Rubbish") }
    #expect(driver.lines.last == "*")
    #expect(throws: Failure.self) {
      try NTLMMechanism(userName: String(repeating: "u", count: 129), password: Secret("p"))
    }
  }

  @Test("GSSAPI without a ticket for the host says so and sends nothing")
  func gssapi() throws {
    var driver = ExchangeDriver(
      try GSSAPIMechanism(service: "pop", host: "mail.example.test", authorizationIdentity: nil))
    #expect(code { try driver.begin() } == .authKerberos)
    #expect(driver.lines.isEmpty)
  }
}
