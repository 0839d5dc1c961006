import NIOCore
import NIOPosix
import PostriderCore
import PostriderTesting
import Testing

@testable import MailProtocols

@Suite("POP3 sessions over sockets", .serialized, .timeLimit(.minutes(5)))
struct POP3SessionTests {
  typealias Step = ScriptedMailServer.Step

  static let capa: [Step] = [.expect("CAPA"), .send("+OK\r\nUSER\r\nUIDL\r\nTOP\r\nSASL PLAIN\r\nPIPELINING\r\n.\r\n")]
  static let oldCapa: [Step] = [.expect("CAPA"), .send("-ERR what?\r\n")]

  private func open(
    _ server: ScriptedMailServer, trace: SessionTrace = SessionTrace(direction: .incoming),
    answer: Duration = .seconds(60)
  ) async throws -> POP3Session {
    try await makeClient().openPOP3(.test(.pop3, server, answer: answer), trace: trace)
  }

  @Test("a whole session, pipelined")
  func pipelined() async throws {
    let server = try await ScriptedMailServer.start(
      [.send("+OK ready\r\n")] + Self.capa + [
        .expect("AUTH PLAIN AGFubmEAY29ycmVjdCBob3JzZQ=="), .send("+OK in\r\n"), .expect("UIDL"),
        .send("+OK\r\n1 a\r\n2 b\r\n.\r\n"), .expect("RETR 1"), .expect("RETR 2"),
        .send("+OK\r\none\r\n..two\r\n.\r\n"), .send("+OK\r\n\r\n.\r\n"), .expect("TOP 1 0"),
        .send("+OK\r\nSubject: x\r\n\r\n.\r\n"), .expect("DELE 1"), .expect("DELE 2"), .send("+OK\r\n+OK\r\n"),
        .expect("QUIT"), .send("+OK bye\r\n"), .close,
      ])
    let trace = SessionTrace(direction: .incoming)
    let session = try await open(server, trace: trace)
    #expect(session.capabilities.pipelining)
    try await session.authenticate(anna, mechanism: .plain)
    var entries: [POP3Entry] = []
    #expect(try await session.list { entries += $0 } == 2)
    #expect(entries.map(\.uidl.text) == ["a", "b"])
    let collected = Collected()
    try await session.retrieve([1, 2], maximumOctets: 1_000) { collected.take($0, $1) }
    #expect(collected.texts == [1: "one\r\n.two\r\n", 2: "\r\n"])
    #expect(collected.ends == [1: 11, 2: 2])
    #expect(try await session.top(1, lines: 0) == Array("Subject: x\r\n\r\n".utf8))
    #expect(try await session.delete([1, 2]).isEmpty)
    try await session.quit()
    #expect(server.mismatches.isEmpty)
    #expect(
      trace.steps.map(\.name) == [
        .resolve, .connect, .greeting, .capabilities, .authenticate, .list, .fetch, .fetch, .delete, .quit,
      ])
    #expect(trace.steps.allSatisfy { $0.result == .ok && !"\($0)".contains("horse") && !"\($0)".contains("AGFubm") })
    await server.stop()
  }

  @Test("a task on an event loop and its connection share that loop, whichever it is")
  func sharedLoop() async throws {
    let client = try makeClient()
    var loops: Set<ObjectIdentifier> = []
    for _ in 0..<System.coreCount {
      let server = try await ScriptedMailServer.start(
        [.send("+OK ready\r\n")] + Self.capa + [.expect("QUIT"), .send("+OK bye\r\n"), .close])
      let loop = try await withTaskExecutorPreference(client.executor) {
        let loop = try #require(MultiThreadedEventLoopGroup.currentEventLoop)
        let session = try await client.openPOP3(.test(.pop3, server), trace: SessionTrace(direction: .incoming))
        #expect(session.connection.channel.eventLoop === loop)
        try await session.quit()
        #expect(MultiThreadedEventLoopGroup.currentEventLoop === loop)
        return ObjectIdentifier(loop)
      }
      loops.insert(loop)
      await server.stop()
    }
    #expect(loops.count == System.coreCount, "they take turns")
  }

  @Test("a server from before CAPA, in lockstep")
  func lockstep() async throws {
    let server = try await ScriptedMailServer.start(
      [.send("+OK\r\n")] + Self.oldCapa + [
        .expect("USER anna"), .send("+OK\r\n"), .expect("PASS correct horse"), .send("+OK\r\n"), .expect("UIDL"),
        .send("+OK\r\n1 a\r\n.\r\n"), .expect("RETR 1"), .send("+OK\r\nab\r\n.\r\n"), .expect("QUIT"),
        .send("+OK\r\n"),
      ])
    let session = try await open(server)
    try await session.authenticate(anna, mechanism: .plain)
    #expect(try await session.list() == 1)
    let collected = Collected()
    try await session.retrieve([1], maximumOctets: 1_000) { collected.take($0, $1) }
    #expect(collected.texts == [1: "ab\r\n"])
    try await session.quit()
    #expect(await server.wait { $0.first?.isClosed == true })
    #expect(server.mismatches.isEmpty)
  }

  @Test("a wrong password leaves a session that can say goodbye")
  func wrongPassword() async throws {
    let server = try await ScriptedMailServer.start(
      [.send("+OK\r\n")] + Self.capa + [
        .expect("AUTH PLAIN"), .send("-ERR [AUTH] Authentication failed.\r\n"), .expect("QUIT"), .send("+OK\r\n"),
      ])
    let trace = SessionTrace(direction: .incoming)
    let session = try await open(server, trace: trace)
    let failure = await failure { try await session.authenticate(anna, mechanism: .plain) }
    #expect(failure?.code == .authRejected)
    #expect(failure?.serverWords == "-ERR [AUTH] Authentication failed.")
    #expect(trace.steps.last?.code == .authRejected)
    try await session.quit()
    #expect(server.mismatches.isEmpty)
  }

  @Test("nothing listens")
  func refused() async throws {
    let endpoint = MailEndpoint(kind: .pop3, host: "mail.example.test", port: try LoopbackPort.free(), tls: .none)
    let trace = SessionTrace(direction: .incoming)
    let failure = await failure { _ = try await makeClient().openPOP3(endpoint, trace: trace) }
    #expect(failure?.code == .tcpRefused)
    #expect(trace.steps.map(\.name) == [.resolve, .connect])
  }

  @Test("the second address of a host is tried when the first one refuses")
  func secondAddress() async throws {
    let server = try await ScriptedMailServer.start([.send("+OK\r\n")] + Self.capa)
    let client = try makeClient(
      resolver: StaticResolver(hosts: ["mail.example.test": ["127.0.0.9", "127.0.0.1"]]))
    let session = try await client.openPOP3(.test(.pop3, server), trace: SessionTrace(direction: .incoming))
    session.abort()
  }

  @Test("an unknown host")
  func unknownHost() async throws {
    let endpoint = MailEndpoint(kind: .pop3, host: "nowhere.example.test", port: 110, tls: .none)
    let failure = await failure {
      _ = try await makeClient().openPOP3(endpoint, trace: SessionTrace(direction: .incoming))
    }
    #expect(failure?.code == .dnsUnknownHost)
  }

  @Test("a name server that hangs")
  func hangingResolver() async throws {
    struct Hanging: MailResolver {
      let signal: ScriptSignal
      func resolve(_ host: String) async throws(Failure) -> [IPAddress] {
        await signal.wait()
        return []
      }
    }
    let signal = ScriptSignal()
    var endpoint = MailEndpoint(kind: .pop3, host: "mail.example.test", port: 110, tls: .none)
    endpoint.connectTimeout = .milliseconds(100)
    let client = try makeClient(resolver: Hanging(signal: signal))
    let failure = await failure { _ = try await client.openPOP3(endpoint, trace: SessionTrace(direction: .incoming)) }
    #expect(failure?.code == .dnsTemporary)
    signal.fire()
  }

  @Test("an empty mailbox")
  func empty() async throws {
    let server = try await ScriptedMailServer.start(
      [.send("+OK\r\n")] + Self.capa + [
        .expect("AUTH"), .send("+OK\r\n"), .expect("UIDL"), .send("+OK\r\n.\r\n"),
      ])
    let session = try await open(server)
    try await session.authenticate(anna, mechanism: .plain)
    #expect(try await session.list() == 0)
    try await session.retrieve([], maximumOctets: 1) { _, _ in }
    session.abort()
  }

  @Test("the server closes in the middle of a message: what is complete is delivered, the rest is a failure")
  func closedMidMessage() async throws {
    let server = try await ScriptedMailServer.start(
      [.send("+OK\r\n")] + Self.capa + [
        .expect("RETR 1"), .expect("RETR 2"), .send("+OK\r\none\r\n.\r\n+OK\r\nhalf"), .close,
      ])
    let session = try await open(server)
    let collected = Collected()
    let failure = await failure {
      try await session.retrieve([1, 2], maximumOctets: 1_000) { collected.take($0, $1) }
    }
    #expect(failure?.code == .tcpClosed)
    #expect(collected.order == [1])
    let again = await self.failureCode { _ = try await session.list() }
    #expect(again == .tcpClosed)
  }

  private func failureCode(_ body: () async throws -> Void) async -> FailureCode? {
    await failure(body)?.code
  }

  @Test("a silent server: no greeting, no answer, no end of a body")
  func silent() async throws {
    let greeting = try await ScriptedMailServer.start([])
    let noGreeting = await failure { _ = try await open(greeting, answer: .seconds(2)) }
    #expect(noGreeting?.code == .pop3Greeting)
    #expect(await greeting.wait { $0.first?.isClosed == true })

    let server = try await ScriptedMailServer.start(
      [.send("+OK\r\n")] + Self.capa + [.expect("RETR 1"), .send("+OK\r\n")],
      [.send("+OK\r\n")] + Self.capa + [.expect("UIDL")])
    // Long enough for the answers that do come, on a machine that stands still for a while.
    let body = try await open(server, answer: .seconds(8))
    let list = try await open(server, answer: .seconds(8))
    async let noBody = failure { try await body.retrieve([1], maximumOctets: 10) { _, _ in } }
    async let noAnswer = failure { _ = try await list.list() }
    #expect(await noBody?.code == .tcpTimeout)
    #expect(await noAnswer?.code == .tcpTimeout)
    #expect(await server.wait { $0.count == 2 && $0.allSatisfy(\.isClosed) })
  }

  @Test("a server that drips: below the minimum rate, and a status line that never ends in time")
  func drip() async throws {
    let server = try await ScriptedMailServer.start(
      [.send("+OK\r\n")] + Self.capa + [
        .expect("RETR 1"), .send("+OK\r\n"),
        .drip(String(repeating: "x", count: 10_000), every: .milliseconds(20)),
      ],
      [.drip("+OK " + String(repeating: "x", count: 400), every: .milliseconds(20))])
    // Something drips in each window, also on a machine that stands still for a while.
    var endpoint = try await MailEndpoint.test(.pop3, server, answer: .seconds(8))
    endpoint.minimumOctetsPerSecond = 1_000
    let session = try await makeClient().openPOP3(endpoint, trace: SessionTrace(direction: .incoming))
    let slow = await failure { try await session.retrieve([1], maximumOctets: 100_000) { _, _ in } }
    #expect(slow?.code == .tcpTooSlow, "\(String(describing: slow))")
    let late = await failure { _ = try await open(server, answer: .seconds(2)) }
    #expect(late?.code == .pop3Greeting)
  }

  @Test("floods: a status line, a listing line, capabilities without end")
  func floods() async throws {
    let server = try await ScriptedMailServer.start(
      [.send("+OK "), .flood(String(repeating: "x", count: 1_000))],
      [.send("+OK\r\n"), .expect("CAPA"), .send("+OK\r\n"), .flood("X\r\n")],
      [.send("+OK\r\n")] + Self.capa + [.expect("UIDL"), .send("+OK\r\n1 "), .flood("xxxxxxxxxx")])
    for _ in 0..<2 {
      let failure = await failure { _ = try await open(server) }
      #expect(failure?.code == .protocolLimit)
    }
    let session = try await open(server)
    let failure = await failure { _ = try await session.list() }
    #expect(failure?.code == .protocolLimit)
    #expect(await server.wait { $0.count == 3 && $0.allSatisfy(\.isClosed) })
  }

  @Test("a body without end is held back while the consumer works, and drained no further than allowed")
  func backPressure() async throws {
    let server = try await ScriptedMailServer.start(
      [.send("+OK\r\n")] + Self.capa + [
        .expect("RETR 1"), .send("+OK\r\n"), .flood(String(repeating: "0123456789abcdef", count: 1_024)),
      ])
    let session = try await open(server, answer: .seconds(6))
    var octets = 0
    let failure = await failure {
      try await session.retrieve([1], maximumOctets: 1 << 40) { _, chunk in
        if case .octets(let part) = chunk { octets += part.count }
        // Longer than the answer time-out in sum: a wait of ours is not the server's fault.
        if octets < 4_000 { try await Task.sleep(for: .milliseconds(3_600)) }
        if octets > 8_000_000 { throw Failure(.messageStore) }
      }
    }
    #expect(failure?.code == .messageStore, "\(String(describing: failure)), \(octets)")
    #expect(octets < 9_000_000)
    #expect(await server.wait { $0.first?.isClosed == true })
  }

  @Test("a large message arrives whole")
  func large() async throws {
    let line = String(repeating: "0123456789", count: 7) + "\r\n"
    let text = String(repeating: "." + line + line, count: 20_000)
    let stuffed = String(repeating: ".." + line + line, count: 20_000)
    let server = try await ScriptedMailServer.start(
      [.send("+OK\r\n")] + Self.capa + [.expect("RETR 1"), .send("+OK\r\n" + stuffed + ".\r\n")])
    let session = try await open(server)
    let collected = Collected()
    try await session.retrieve([1], maximumOctets: 10_000_000) { collected.take($0, $1) }
    #expect(collected.texts[1] == text)
    #expect(collected.ends[1] == Int64(text.utf8.count))
    session.abort()
  }

  @Test("CR, LF and NUL in credentials: nothing is sent", arguments: ["a\rb", "a\nb", "a\u{0}b", "a\r\nDELE 1"])
  func dangerous(text: String) async throws {
    let server = try await ScriptedMailServer.start([.send("+OK\r\n")] + Self.capa)
    let session = try await open(server)
    let name = await failure {
      try await session.authenticate(Credentials(userName: text, password: Secret("p")), mechanism: .plain)
    }
    let password = await failure {
      try await session.authenticate(Credentials(userName: "u", password: Secret(text)), mechanism: .plain)
    }
    for failure in [name, password] {
      #expect(failure?.code == .authRejected)
      #expect(failure?.failureClass == .permanent)
    }
    session.abort()
    #expect(await server.wait { $0.first?.isClosed == true })
    #expect(server.lines == ["CAPA"])
  }

  @Test("a dangerous host is refused before anything is looked up", arguments: ["a\r\nb", "a b", "", "a\u{0}"])
  func dangerousHost(host: String) async throws {
    let endpoint = MailEndpoint(kind: .pop3, host: host, port: 995, tls: .implicit)
    let failure = await failure {
      _ = try await makeClient().openPOP3(endpoint, trace: SessionTrace(direction: .incoming))
    }
    #expect(failure?.code == .dnsUnknownHost)
  }

  @Test("abort during a wait: the call throws at once and the socket is closed")
  func abort() async throws {
    let asked = ScriptSignal()
    let server = try await ScriptedMailServer.start(
      [.send("+OK\r\n")] + Self.capa + [.expect("UIDL"), .signal(asked)])
    let session = try await open(server)
    async let listed = failure { _ = try await session.list() }
    await asked.wait()
    session.abort()
    #expect(await listed?.code == .runAborted)
    #expect(await server.wait { $0.first?.isClosed == true })
    let later = await failure { _ = try await session.list() }
    #expect(later?.code == .runAborted)
  }

  @Test("cancellation closes the socket and throws CancellationError", arguments: [true, false])
  func cancellation(streaming: Bool) async throws {
    let asked = ScriptSignal()
    let server = try await ScriptedMailServer.start(
      [.send("+OK\r\n")] + Self.capa + [.expect(streaming ? "RETR" : "UIDL"), .signal(asked)])
    let session = try await open(server)
    let task = Task {
      if streaming {
        try await session.retrieve([1], maximumOctets: 1) { _, _ in }
      } else {
        _ = try await session.list()
      }
    }
    await asked.wait()
    task.cancel()
    await #expect(throws: CancellationError.self) { try await task.value }
    #expect(await server.wait { $0.first?.isClosed == true })
  }

  @Test("a cancelled task closes the socket at once, whatever it waits for")
  func cancelledElsewhere() async throws {
    let (inside, go) = (ScriptSignal(), ScriptSignal())
    let server = try await ScriptedMailServer.start([.send("+OK\r\n")] + Self.capa)
    let session = try await open(server)
    let task = Task {
      try await session.whileOpen {
        inside.fire()
        await go.wait()
      }
    }
    await inside.wait()
    task.cancel()
    #expect(await server.wait { $0.first?.isClosed == true })
    go.fire()
    try await task.value
    await #expect(throws: CancellationError.self) { _ = try await session.list() }
  }

  @Test("headers are one step; a server that does not know CAPA has TOP unless it refuses the first")
  func headers() async throws {
    let server = try await ScriptedMailServer.start(
      [.send("+OK\r\n")] + Self.oldCapa + [
        .expect("TOP 1 0"), .send("+OK\r\nSubject: x\r\n\r\n.\r\n"), .expect("TOP 2 0"), .send("-ERR no\r\n"),
        .expect("TOP 3 0"), .send("+OK\r\nSubject: z\r\n\r\n.\r\n"),
      ],
      [.send("+OK\r\n")] + Self.oldCapa + [.expect("TOP 1 0"), .send("-ERR what?\r\n")])
    let trace = SessionTrace(direction: .incoming)
    let session = try await open(server, trace: trace)
    var found: [String] = []
    try await session.headers(of: [1, 2, 3, 4]) { number, octets in
      found.append("\(number) \(octets?.count ?? 0)")
      return number < 3
    }
    #expect(found == ["1 14", "2 0", "3 14"])
    #expect(session.mayTop)
    #expect(trace.steps.last?.tried == "TOP of 4 messages")
    session.abort()

    let old = try await open(server)
    #expect(old.mayTop)
    try await old.headers(of: [1, 2]) { _, _ in
      Issue.record("there is nothing to hand out")
      return true
    }
    #expect(!old.mayTop)
    old.abort()
    #expect(server.mismatches.isEmpty)
  }

  @Test("a session that is dropped does not keep its socket")
  func dropped() async throws {
    let server = try await ScriptedMailServer.start([.send("+OK\r\n")] + Self.capa)
    _ = try await open(server)
    #expect(await server.wait { $0.first?.isClosed == true })
  }

  @Test("mechanisms that do not fit")
  func mechanisms() async throws {
    let server = try await ScriptedMailServer.start(
      [.send("+OK\r\n"), .expect("CAPA"), .send("+OK\r\nUIDL\r\n.\r\n")])
    let session = try await open(server)
    let none = await failure { try await session.authenticate(anna, mechanism: .auto) }
    #expect(none?.code == .authNoMechanism)
    let other = await failure { try await session.authenticate(anna, mechanism: .scramSHA256) }
    #expect(other?.code == .authNoMechanism)
    session.abort()
  }
}
