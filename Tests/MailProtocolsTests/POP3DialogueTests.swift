import NIOCore
import PostriderCore
import Testing

@testable import MailProtocols

/// Drives a dialogue by hand: what the server says goes in, what the machine wants comes out.
struct Driver<Machine: Dialogue> {
  var machine: Machine
  var input = LineBuffer()
  /// What the machine did since it was last asked, in words.
  var log: [String] = []
  var outcome: Machine.Outcome?
  var failure: Failure?

  init(_ machine: Machine) { self.machine = machine }

  mutating func begin(_ operation: Machine.Operation) {
    outcome = nil
    failure = nil
    if let action = machine.begin(operation, &input) { _ = note(action) } else { run() }
  }

  mutating func server(_ text: String) {
    input.append(ByteBuffer(string: text))
    run()
  }

  mutating func take() -> [String] {
    defer { log = [] }
    return log
  }

  private mutating func run() { while note(machine.next(&input)) {} }

  private mutating func note(_ action: DialogueAction<Machine.Outcome, Machine.Item>) -> Bool {
    switch action {
    case .wait, .awaitBody: return false
    case .send(let bytes):
      log.append(String(buffer: bytes))
      return true
    case .sendBody:
      while let piece = machine.nextBodyPiece() { log.append(String(buffer: piece)) }
      return true
    case .startTLS:
      log.append("TLS")
      return false
    case .compute(let computation):
      machine.computed(computation.run())
      return true
    case .emit(let item, _):
      log.append("\(item)")
      return true
    case .done(let outcome):
      self.outcome = outcome
      log.append("done")
      return false
    case .failed(let failure):
      self.failure = failure
      log.append("failed \(failure.code.rawValue)")
      return false
    case .broken(let failure):
      self.failure = failure
      log.append("broken \(failure.code.rawValue)")
      return false
    }
  }
}

@Suite("POP3 dialogue")
struct POP3DialogueTests {
  private func ready(_ capabilities: String = "", tls: TLSMode = .none) -> Driver<POP3Dialogue> {
    var driver = Driver(POP3Dialogue(tls: tls))
    driver.begin(.greeting)
    driver.server("+OK hello\r\n")
    driver.begin(.capabilities)
    driver.server("+OK\r\n\(capabilities).\r\n")
    _ = driver.take()
    return driver
  }

  @Test("greeting that comes before it is asked for")
  func early() {
    var driver = Driver(POP3Dialogue(tls: .none))
    driver.server("+OK hi\r\n")
    driver.begin(.greeting)
    #expect(driver.take() == ["done"])
  }

  @Test("TLS where a greeting was expected")
  func tlsGreeting() {
    var driver = Driver(POP3Dialogue(tls: .none))
    driver.begin(.greeting)
    driver.input.append(ByteBuffer(bytes: [0x15, 3, 1, 0, 2, 2, 10]))
    driver.server("")
    #expect(driver.failure?.code == .tlsPortMismatch)
  }

  @Test("+OK that arrives twice is an answer that nobody asked for")
  func twice() {
    var driver = ready()
    driver.begin(.login(.userPass(anna)))
    driver.server("+OK\r\n")
    driver.server("+OK in\r\n+OK in\r\n")
    #expect(driver.take() == ["USER anna\r\n", "PASS correct horse\r\n", "done"])
    driver.begin(.list)
    #expect(driver.take() == ["broken protocol.syntax"])
  }

  @Test("SASL PLAIN with an initial response that fits, and one that does not")
  func plain() {
    var driver = ready()
    driver.begin(.login(.sasl(PlainMechanism(anna), anna)))
    #expect(driver.take() == ["AUTH PLAIN AGFubmEAY29ycmVjdCBob3JzZQ==\r\n"])
    driver.server("-ERR [AUTH] no\r\n")
    #expect(driver.take() == ["failed auth.rejected"])
    let long = Credentials(userName: String(repeating: "u", count: 200), password: Secret("p"))
    driver.begin(.login(.sasl(PlainMechanism(long), long)))
    #expect(driver.take() == ["AUTH PLAIN\r\n"])
    driver.server("+ \r\n")
    #expect(driver.take().first == SASLBase64.encode(Array("\0\(long.userName)\0p".utf8)) + "\r\n")
    driver.server("+OK\r\n")
    #expect(driver.take() == ["done"])
  }

  @Test("SASL LOGIN does not read the prompts; a third one cancels")
  func login() {
    var driver = ready()
    driver.begin(.login(.sasl(LoginMechanism(anna), anna)))
    driver.server("+ who?\r\n")
    driver.server("+ UGFzc3dvcmQ6\r\n")
    driver.server("+ more\r\n")
    #expect(driver.take() == ["AUTH LOGIN\r\n", "YW5uYQ==\r\n", "Y29ycmVjdCBob3JzZQ==\r\n", "*\r\n"])
    driver.server("-ERR cancelled\r\n")
    #expect(driver.take() == ["failed auth.rejected-unspecified"])
  }

  @Test("a challenge longer than its bound")
  func challenge() {
    var driver = ready()
    driver.begin(.login(.sasl(LoginMechanism(anna), anna)))
    driver.server("+ " + String(repeating: "A", count: 12_300))
    #expect(driver.failure?.code == .protocolLimit)
  }

  @Test("no credentials without TLS when TLS is wanted", arguments: [TLSMode.implicit, .starttls])
  func clearText(mode: TLSMode) {
    var driver = ready(tls: mode)
    driver.begin(.login(.userPass(anna)))
    #expect(driver.take() == ["failed tls.starttls-missing"])
    driver.machine.secured()
    driver.begin(.login(.userPass(anna)))
    #expect(driver.take() == ["USER anna\r\n"])
  }

  @Test("STLS: TLS, and what was known is forgotten")
  func stls() {
    var driver = ready("PIPELINING\r\nSTLS\r\n", tls: .starttls)
    #expect(driver.machine.capabilities.pipelining)
    driver.begin(.startTLS)
    driver.server("+OK go\r\n")
    #expect(driver.take() == ["STLS\r\n", "TLS"])
    driver.machine.secured()
    driver.server("")
    #expect(driver.take() == ["done"])
    #expect(!driver.machine.capabilities.pipelining && !driver.machine.capabilities.isKnown)
  }

  @Test("octets behind the answer to STLS", arguments: ["+OK injected\r\n", "x"])
  func injection(text: String) {
    var driver = ready(tls: .starttls)
    driver.begin(.startTLS)
    driver.server("+OK go\r\n" + text)
    #expect(driver.take() == ["STLS\r\n", "broken tls.starttls-injection"])
  }

  @Test("a listing asks for unique ids alone, and hands them out as they come", arguments: ["", "PIPELINING\r\n"])
  func listing(capabilities: String) {
    var driver = ready(capabilities)
    driver.begin(.list)
    #expect(driver.take() == ["UIDL\r\n"])
    driver.server("+OK\r\n1 a\r\n2 b\r\n3 ")
    let first = driver.take()
    #expect(first.count == 1 && first[0].contains("number: 2") && !first[0].contains("number: 3"))
    driver.server("c\r\n.\r\n")
    let rest = driver.take()
    #expect(rest.count == 2 && rest[0].contains("number: 3") && rest[1] == "done")
  }

  @Test("an empty listing, and one of several pages")
  func pages() {
    var driver = ready()
    driver.begin(.list)
    driver.server("+OK\r\n.\r\n")
    #expect(driver.take() == ["UIDL\r\n", "done"])
    driver.begin(.list)
    driver.server("+OK\r\n" + (1...2_500).map { "\($0) u\($0)\r\n" }.joined() + ".\r\n")
    #expect(driver.take().count == 5, "the command, three pages and the end")
    guard case .done(let words) = driver.outcome else { return #expect(Bool(false), "no outcome") }
    #expect(words == "2500 messages")
  }

  @Test("UIDL refused: the session goes on")
  func noUIDL() {
    var driver = ready("PIPELINING\r\n")
    driver.begin(.list)
    driver.server("-ERR what?\r\n")
    #expect(driver.failure?.code == .pop3NoUIDL)
    driver.begin(.quit)
    driver.server("+OK\r\n")
    #expect(driver.outcome != nil)
  }

  @Test("numbers that repeat", arguments: ["1 a\r\n1 b\r\n", "2 a\r\n1 b\r\n"])
  func repeated(lines: String) {
    var driver = ready("PIPELINING\r\n")
    driver.begin(.list)
    driver.server("+OK\r\n" + lines)
    #expect(driver.failure?.code == .protocolSyntax)
  }

  @Test("a listing without end")
  func endless() {
    var driver = ready("PIPELINING\r\n")
    #expect(driver.machine.maximumEntries == 1_000_000)
    driver.machine.maximumEntries = 100
    driver.begin(.list)
    driver.server("+OK\r\n")
    driver.server((1...100).map { "\($0) u\($0)\r\n" }.joined())
    #expect(driver.failure == nil)
    driver.server("101 u\r\n")
    #expect(driver.failure?.code == .protocolLimit)
  }

  @Test("capabilities without end")
  func endlessCapabilities() {
    var driver = Driver(POP3Dialogue(tls: .none))
    driver.begin(.capabilities)
    driver.server("+OK\r\n" + String(repeating: "X\r\n", count: 1_001))
    #expect(driver.failure?.code == .protocolLimit)
  }

  @Test("RETR keeps a window when the server pipelines, and one command when not", arguments: [(true, 8), (false, 1)])
  func window(pipelined: Bool, size: Int) {
    var driver = ready(pipelined ? "PIPELINING\r\n" : "")
    driver.begin(.retrieve(Array(1...20), maximumOctets: 100, budget: RetrievalBudget()))
    #expect(driver.take() == [(1...size).map { "RETR \($0)\r\n" }.joined()])
    for number in 1...20 { driver.server("+OK\r\nm\(number)\r\n.\r\n") }
    let log = driver.take()
    #expect(log.last == "done")
    #expect(log.filter { $0.contains("end(") }.count == 20)
    #expect(log.joined().contains("RETR 20"))
  }

  @Test("a refused message, one too large, and one that is fine")
  func refused() {
    var driver = ready("PIPELINING\r\n")
    driver.begin(.retrieve([1, 2, 3], maximumOctets: 5, budget: RetrievalBudget()))
    driver.server("-ERR no such message\r\n+OK\r\n0123456789\r\n.\r\n+OK\r\nabc\r\n.\r\n")
    let log = driver.take().dropFirst()
    #expect(log.count == 5)
    #expect(log.first?.contains("pop3.retr") == true)
    #expect(log.dropFirst().first?.contains("message.too-large") == true)
    #expect(log.last == "done")
  }

  @Test(
    "a budget that is used up: what was asked for still comes, nothing more is asked for", arguments: [true, false])
  func budget(pipelined: Bool) {
    var driver = ready(pipelined ? "PIPELINING\r\n" : "")
    driver.begin(.retrieve(Array(1...20), maximumOctets: 100, budget: RetrievalBudget(octets: 4)))
    let window = pipelined ? 8 : 1
    for number in 1...window { driver.server("+OK\r\nm\(number)\r\n.\r\n") }
    let log = driver.take()
    #expect(log.first == (1...window).map { "RETR \($0)\r\n" }.joined())
    #expect(log.last == "done" && log.filter { $0.contains("RETR") }.count == 1)
    #expect(log.filter { $0.contains("end(") }.count == window)
    // One message always comes, also when there is no time left.
    driver.begin(.retrieve([1, 2], maximumOctets: 100, budget: RetrievalBudget(until: .now - .seconds(1))))
    driver.server(String(repeating: "+OK\r\nm\r\n.\r\n", count: pipelined ? 2 : 1))
    #expect(driver.outcome != nil)
  }

  @Test("a message that does not end is refused, and ends the session")
  func endlessMessage() {
    var driver = ready("PIPELINING\r\n")
    driver.begin(.retrieve([1, 2], maximumOctets: 1_000, budget: RetrievalBudget()))
    driver.server("+OK\r\n")
    let piece = String(repeating: String(repeating: "x", count: 78) + "\r\n", count: 12_500)
    for _ in 0..<8 { driver.server(piece) }
    #expect(driver.failure == nil, "it is read on for a while")
    driver.server(piece)
    #expect(driver.failure?.code == .messageTooLarge)
    let log = driver.take()
    #expect(log.last == "broken message.too-large" && log.dropLast().last?.contains("refused") == true)
  }

  @Test("a header longer than what is kept is cut")
  func longHeader() {
    var driver = ready()
    driver.begin(.top(1, lines: 0))
    driver.server("+OK\r\n")
    for _ in 0..<300 { driver.server("X: " + String(repeating: "y", count: 995) + "\r\n") }
    driver.server("\r\n.\r\n")
    guard case .octets(let octets) = driver.outcome else { return #expect(Bool(false), "no outcome") }
    #expect(octets.count == POP3Dialogue.topOctets)
  }

  @Test("DELE reports what the server refused")
  func delete() {
    var driver = ready("PIPELINING\r\n")
    driver.begin(.delete([1, 2, 3]))
    driver.server("+OK\r\n-ERR gone\r\n+OK\r\n")
    guard case .deleted(let failures) = driver.outcome else { return #expect(Bool(false), "no outcome") }
    #expect(failures.keys.sorted() == [2])
  }

  @Test("QUIT that says some messages stay")
  func quit() {
    var driver = ready()
    driver.begin(.quit)
    driver.server("-ERR some deleted messages not removed\r\n")
    #expect(driver.failure?.code == .pop3Rejected)
  }

  @Test("the password is in no description of what went wrong")
  func echo() {
    var driver = ready()
    driver.begin(.login(.userPass(anna)))
    driver.server("+OK\r\n")
    driver.server("-ERR unknown command: PASS correct horse\r\n")
    #expect(driver.failure.map { !"\($0)".contains("horse") } == true)
    driver.begin(.login(.userPass(anna)))
    driver.server("PASS correct horse\r\n")
    #expect(driver.failure?.code == .protocolSyntax)
    #expect(driver.failure.map { !"\($0)".contains("horse") } == true)
  }
}
