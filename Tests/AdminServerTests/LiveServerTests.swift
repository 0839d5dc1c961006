import AsyncHTTPClient
import Foundation
import HTTPTypes
import Logging
import NIOCore
import NIOPosix
import NIOSSL
import PostriderCore
import PostriderTesting
import ServiceLifecycle
import Synchronization
import Telemetry
import Testing

@testable import AdminServer

#if canImport(Glibc)
  import Glibc
#endif

@Suite("Served over real sockets", .timeLimit(.minutes(5)))
struct LiveServerTests {
  static let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

  func server(
    _ configuration: AdminServerConfiguration, store: FakeAdminStore = FakeAdminStore(),
    registry: PrometheusRegistry? = nil, logger: Logger = quiet
  ) -> AdminServer {
    AdminServer(configuration: configuration, store: store, queue: FakeQueue(), registry: registry, logger: logger)
  }

  /// A URL of AsyncHTTPClient for a listener.
  static func url(_ address: BoundAddress, _ path: String) -> String {
    switch address {
    case .unixSocket(let socket):
      "http+unix://\(socket.split(separator: "/", omittingEmptySubsequences: false).joined(separator: "%2F"))\(path)"
    case .tcp: "\(address)\(path)"
    }
  }

  static func post(_ url: String, _ body: String) async throws -> (status: Int, text: String) {
    var request = HTTPClientRequest(url: url)
    request.method = .POST
    request.headers.add(name: "Authorization", value: "Bearer administrator")
    request.body = .bytes(ByteBuffer(string: body))
    let answer = try await HTTPClient.shared.execute(request, timeout: .seconds(60))
    return (Int(answer.status.code), String(buffer: try await answer.body.collect(upTo: 1 << 20)))
  }

  static func get(_ url: String, client: HTTPClient = .shared) async throws -> (status: Int, text: String) {
    var request = HTTPClientRequest(url: url)
    request.headers.add(name: "Authorization", value: "Bearer administrator")
    let answer = try await client.execute(request, timeout: .seconds(60))
    return (Int(answer.status.code), String(buffer: try await answer.body.collect(upTo: 1 << 24)))
  }

  @Test("the same routes on TCP and Unix socket; only the socket takes passwords; the file is 0600 and goes away")
  func both() async throws {
    let directory = try TemporaryDirectory()
    let path = directory.path + "/api.sock"
    let server = server(
      AdminServerConfiguration(tcp: TCPListener(port: 0), unixSocket: path), registry: PrometheusRegistry())
    try await withRunning(server) {
      let addresses = try await server.listening()
      #expect(addresses.count == 2)
      #expect(addresses[0] == .unixSocket(path: path))
      guard case .tcp("127.0.0.1", let port, tls: false) = addresses[1] else {
        Issue.record("not TCP: \(addresses)")
        return
      }
      #expect(port > 0)
      var status = stat()
      #expect(lstat(path, &status) == 0)
      #expect(status.st_mode & 0o777 == 0o600)
      for address in addresses {
        #expect(try await Self.get(Self.url(address, "/api/v1/whoami")).status == 200)
        #expect(try await Self.get(Self.url(address, "/readyz")).status == 200)
        #expect(try await Self.get(Self.url(address, "/metrics")).text.contains("postrider_queue_inflight 1\n"))
        #expect(try await Self.get(Self.url(address, "/api/v1/nothing")).status == 404)
      }
      let body = #"{"address":"a@example.com","password":"pw"}"#
      let refused = try await Self.post(Self.url(addresses[1], "/api/v1/mailboxes"), body)
      #expect(refused.status == 403 && refused.text.contains("insecure-channel"))
      #expect(try await Self.post(Self.url(addresses[0], "/api/v1/mailboxes"), body).status == 201)
    }
    #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path) == [])
  }

  @Test("a large message is streamed through a file; one whose sender goes away in the middle is not stored")
  func uploads() async throws {
    let directory = try TemporaryDirectory()
    var configuration = AdminServerConfiguration(tcp: TCPListener(port: 0))
    configuration.spoolDirectory = directory.path
    let store = FakeAdminStore()
    let server = server(configuration, store: store)
    try await withRunning(server) {
      let address = try await server.listening()[0]
      #expect(
        try await Self.post(Self.url(address, "/api/v1/mailboxes"), #"{"address":"a@example.com"}"#).status == 201)
      let head = "From: a@example.com\r\nTo: b@example.org\r\n\r\n"
      let line = String(repeating: "x", count: 98) + "\r\n"
      var request = HTTPClientRequest(url: Self.url(address, "/api/v1/outgoing-emails?mailbox=1"))
      request.method = .POST
      request.headers.add(name: "Authorization", value: "Bearer administrator")
      request.headers.add(name: "Content-Type", value: "message/rfc822")
      request.body = .bytes(ByteBuffer(string: head + String(repeating: line, count: 100_000)))
      let answer = try await HTTPClient.shared.execute(request, timeout: .seconds(60))
      #expect(answer.status.code == 201)
      let email = try APICoding.decode(
        OutgoingEmail.self, from: Data((try await answer.body.collect(upTo: 1 << 16)).readableBytesView))
      #expect(email.sizeOctets > 10_000_000)

      for body in [
        "Content-Length: 500\r\n\r\n\(head)\(line)", "Transfer-Encoding: chunked\r\n\r\n40\r\n\(head)xxxxxxxxxxxxxxxxx",
      ] {
        try await Self.sendAndLeave(
          address,
          "POST /api/v1/outgoing-emails?mailbox=1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer administrator\r\n"
            + "Content-Type: message/rfc822\r\n\(body)")
      }
      // A request that comes after them is served after them.
      #expect(try await Self.get(Self.url(address, "/api/v1/whoami")).status == 200)
    }
    #expect(store.state.withLock { $0.outgoing.count } == 1)
    #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path) == [])
  }

  /// Writes octets and closes, as a client that dies.
  static func sendAndLeave(_ address: BoundAddress, _ text: String) async throws {
    guard case .tcp(let host, let port, _) = address else { return }
    let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .connect(host: host, port: port).get()
    try await channel.writeAndFlush(ByteBuffer(string: text))
    try await channel.close()
  }

  @Test("a trusted proxy's word counts, from its address alone")
  func proxies() async throws {
    for (proxies, word, expected) in [
      (["127.0.0.1"], "https", 201), (["127.0.0.1"], "http", 403), (["127.0.0.1"], "https, http", 403),
      (["192.0.2.1"], "https", 403),
    ] {
      var configuration = AdminServerConfiguration(tcp: TCPListener(port: 0))
      configuration.trustedProxies = proxies.compactMap { AddressRange($0) }
      let server = server(configuration)
      try await withRunning(server) {
        var request = HTTPClientRequest(url: Self.url(try await server.listening()[0], "/api/v1/mailboxes"))
        request.method = .POST
        request.headers.add(name: "Authorization", value: "Bearer administrator")
        request.headers.add(name: "X-Forwarded-Proto", value: word)
        request.body = .bytes(ByteBuffer(string: #"{"address":"a@example.com","password":"pw"}"#))
        let answer = try await HTTPClient.shared.execute(request, timeout: .seconds(60))
        _ = try await answer.body.collect(upTo: 1 << 16)
        #expect(Int(answer.status.code) == expected, "\(proxies) \(word)")
      }
    }
  }

  @Test("TLS is a secure channel; a bad certificate is told at the start")
  func tls() async throws {
    let directory = try TemporaryDirectory()
    let (certificate, key) = (directory.path + "/c.pem", directory.path + "/k.pem")
    try makeCertificate(certificate, key)
    var configuration = AdminServerConfiguration(
      tcp: TCPListener(port: 0, tls: TLSFiles(certificateChain: certificate, privateKey: key)))
    let server = server(configuration)
    try await withRunning(server) {
      let address = try await server.listening()[0]
      var trust = TLSConfiguration.makeClientConfiguration()
      trust.certificateVerification = .none
      let client = HTTPClient(configuration: .init(tlsConfiguration: trust))
      do {
        var request = HTTPClientRequest(url: Self.url(address, "/api/v1/mailboxes"))
        request.method = .POST
        request.headers.add(name: "Authorization", value: "Bearer administrator")
        request.body = .bytes(ByteBuffer(string: #"{"address":"a@example.com","password":"pw"}"#))
        let answer = try await client.execute(request, timeout: .seconds(60))
        _ = try await answer.body.collect(upTo: 1 << 16)
        #expect(answer.status == .created)
        try await client.shutdown()
      } catch {
        try await client.shutdown()
        throw error
      }
    }
    configuration.tcp?.tls?.privateKey = certificate
    let broken = self.server(configuration)
    let error = await #expect(throws: ListenError.self) { try await broken.run() }
    #expect(error?.description.hasPrefix("the certificate or key cannot be used") == true)
    await #expect(throws: ListenError.self) { _ = try await broken.listening() }
  }

  @Test("a socket that somebody serves is left alone, a stale one is replaced, a file is not touched")
  func staleSockets() async throws {
    let directory = try TemporaryDirectory()
    let path = directory.path + "/api.sock"
    let configuration = AdminServerConfiguration(unixSocket: path)
    let first = server(configuration)
    try await withRunning(first) {
      let address = try await first.listening()[0]
      let error = await #expect(throws: ListenError.self) { try await self.server(configuration).run() }
      #expect(error == .inUse(path))
      #expect(try await Self.get(Self.url(address, "/healthz")).status == 200)
    }

    // What a killed process leaves behind: a socket file with nobody behind it.
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    try SocketAddress(unixDomainSocketPath: path).withSockAddr { address, size in
      #expect(bind(descriptor, address, socklen_t(size)) == 0)
    }
    close(descriptor)
    #expect(FileManager.default.fileExists(atPath: path))
    let second = server(configuration)
    try await withRunning(second) {
      let address = try await second.listening()[0]
      #expect(try await Self.get(Self.url(address, "/healthz")).status == 200)
    }

    try Data("precious".utf8).write(toFile: path)
    let error = await #expect(throws: ListenError.self) { try await self.server(configuration).run() }
    #expect(error == .notASocket(path: path))
    #expect(FileManager.default.contents(atPath: path) == Data("precious".utf8))
    #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path) == ["api.sock"])
  }

  @Test("a socket path that is too long, a port in use, nothing to serve on")
  func refusals() async throws {
    let long = AdminServerConfiguration(unixSocket: "/tmp/" + String(repeating: "x", count: 200))
    let tooLong = await #expect(throws: ListenError.self) { try await self.server(long).run() }
    #expect(tooLong?.description.contains("too long") == true)
    let first = server(AdminServerConfiguration(tcp: TCPListener(port: 0)))
    try await withRunning(first) {
      guard case .tcp(_, let port, _) = try await first.listening()[0] else { return }
      let second = self.server(AdminServerConfiguration(tcp: TCPListener(port: port)))
      let error = await #expect(throws: ListenError.self) { try await second.run() }
      #expect(error == .inUse("127.0.0.1:\(port)"))
    }
    let none = await #expect(throws: ListenError.self) { try await self.server(AdminServerConfiguration()).run() }
    #expect(none == .nothingToServe)
  }

  @Test("a graceful stop finishes the request in flight and takes no new one")
  func gracefulStop() async throws {
    let (gate, opening) = AsyncStream<Void>.makeStream()
    let (atGate, arrival) = AsyncStream<Void>.makeStream()
    var configuration = AdminServerConfiguration(tcp: TCPListener(port: 0))
    configuration.shutdownGrace = .seconds(120)
    let server = server(configuration, store: FakeAdminStore(gate: gate, atGate: arrival))
    let group = ServiceGroup(services: [server], logger: Self.quiet)
    let running = Task { try await group.run() }
    let address = try await server.listening()[0]
    let answer = Task { try await Self.get(Self.url(address, "/api/v1/server-profiles")) }
    for await _ in atGate { break }
    await group.triggerGracefulShutdown()
    // A connection at a time without a pool: AsyncHTTPClient tries a refused connection again until its deadline.
    let question = "GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    let deadline = ContinuousClock.now + .seconds(60)
    while ContinuousClock.now < deadline {
      do { _ = try await Self.exchange(address, question) } catch { break }
    }
    #expect(ContinuousClock.now < deadline, "new connections were still taken")
    opening.finish()
    #expect(try await answer.value.status == 200)
    try await running.value
  }

  @Test("a stop does not wait longer than the grace, nor for an idle connection")
  func grace() async throws {
    let (gate, opening) = AsyncStream<Void>.makeStream()
    let (atGate, arrival) = AsyncStream<Void>.makeStream()
    var configuration = AdminServerConfiguration(tcp: TCPListener(port: 0))
    configuration.shutdownGrace = .milliseconds(100)
    configuration.requestTimeout = .seconds(600)
    let server = server(configuration, store: FakeAdminStore(gate: gate, atGate: arrival))
    let group = ServiceGroup(services: [server], logger: Self.quiet)
    let running = Task { try await group.run() }
    let address = try await server.listening()[0]
    let answer = Task { try await Self.get(Self.url(address, "/api/v1/server-profiles")) }
    for await _ in atGate { break }
    let began = ContinuousClock.now
    await group.triggerGracefulShutdown()
    try await running.value
    // The request would last until its client gives up, a minute after it began.
    #expect(ContinuousClock.now - began < .seconds(30))
    opening.finish()
    _ = await answer.result
  }

  @Test("cancellation stops the server as well")
  func cancellation() async throws {
    let directory = try TemporaryDirectory()
    let server = server(
      AdminServerConfiguration(tcp: TCPListener(port: 0), unixSocket: directory.path + "/s.sock"))
    let running = Task { try await server.run() }
    _ = try await server.listening()
    running.cancel()
    _ = await running.result
    #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path) == [])
  }

  @Test("a hundred requests at once on both listeners")
  func concurrency() async throws {
    let directory = try TemporaryDirectory()
    let store = FakeAdminStore()
    let server = server(
      AdminServerConfiguration(tcp: TCPListener(port: 0), unixSocket: directory.path + "/s.sock"), store: store)
    try await withRunning(server) {
      let addresses = try await server.listening()
      try await withThrowingTaskGroup(of: Void.self) { group in
        for number in 0..<100 {
          group.addTask {
            let answer = try await Self.post(
              Self.url(addresses[number % 2], "/api/v1/mailboxes"), "{\"address\":\"a\(number)@example.com\"}")
            #expect(answer.status == 201)
          }
        }
        try await group.waitForAll()
      }
    }
    #expect(Set(store.state.withLock { $0.mailboxes.map(\.address) }).count == 100)
  }

  @Test("an endless body is cut off at the limit; the server goes on")
  func endlessBody() async throws {
    let server = server(AdminServerConfiguration(tcp: TCPListener(port: 0)))
    try await withRunning(server) {
      let address = try await server.listening()[0]
      var request = HTTPClientRequest(url: Self.url(address, "/api/v1/mailboxes"))
      request.method = .POST
      request.headers.add(name: "Authorization", value: "Bearer administrator")
      let chunk = ByteBuffer(repeating: 0x20, count: 64 * 1_024)
      request.body = .stream(
        AsyncStream { continuation in
          for _ in 0..<64 { continuation.yield(chunk) }
          continuation.finish()
        }, length: .unknown)
      let answer = try await HTTPClient.shared.execute(request, timeout: .seconds(60))
      #expect(answer.status == .payloadTooLarge)
      _ = try await answer.body.collect(upTo: 1 << 16)
      #expect(try await Self.get(Self.url(address, "/healthz")).status == 200)
    }
  }

  @Test("a raw message of many chunks arrives whole; one that breaks off is seen as broken")
  func rawStream() async throws {
    let store = FakeAdminStore()
    store.change { state in
      state.raw[EmailID(1)] = (0..<20).map { [UInt8](repeating: $0, count: 100_000) }
    }
    let server = server(AdminServerConfiguration(tcp: TCPListener(port: 0)), store: store)
    try await withRunning(server) {
      let url = Self.url(try await server.listening()[0], "/api/v1/emails/1/raw")
      #expect(try await Self.get(url).text.utf8.count == 2_000_000)
      store.change { $0.rawFailure = StoreError.unavailable(reason: "gone") }
      await #expect(throws: (any Error).self) { _ = try await Self.get(url) }
      let address = try await server.listening()[0]
      #expect(try await Self.get(Self.url(address, "/healthz")).status == 200)
    }
  }

  /// Sends bytes and reads until the server closes.
  static func exchange(_ address: BoundAddress, _ text: String) async throws -> String {
    guard case .tcp(let host, let port, _) = address else { return "" }
    let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
      .connect(host: host, port: port) { channel in
        channel.eventLoop.makeCompletedFuture {
          try NIOAsyncChannel<ByteBuffer, ByteBuffer>(wrappingChannelSynchronously: channel)
        }
      }
    return try await channel.executeThenClose { inbound, outbound in
      try await outbound.write(ByteBuffer(string: text))
      var all = ByteBuffer()
      for try await part in inbound { all.writeImmutableBuffer(part) }
      return String(buffer: all)
    }
  }

  @Test("what is not HTTP gets a 400 and the connection is closed")
  func notHTTP() async throws {
    let server = server(AdminServerConfiguration(tcp: TCPListener(port: 0)))
    try await withRunning(server) {
      let answer = try await Self.exchange(try await server.listening()[0], "\u{16}\u{3}\u{1} hello\r\n\r\n")
      #expect(answer.hasPrefix("HTTP/1.1 400"))
    }
  }

  @Test("a body that does not arrive, and one that is badly chunked, end the connection with an answer")
  func slowBody() async throws {
    var configuration = AdminServerConfiguration(tcp: TCPListener(port: 0))
    configuration.requestTimeout = .milliseconds(200)
    let server = server(configuration)
    try await withRunning(server) {
      let head = "POST /api/v1/mailboxes HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer administrator\r\n"
      let address = try await server.listening()[0]
      let slow = try await Self.exchange(address, head + "Content-Length: 100\r\n\r\n{")
      #expect(slow.hasPrefix("HTTP/1.1 408") && slow.contains("\"code\":\"timeout\""))
      let broken = try await Self.exchange(address, head + "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n")
      #expect(broken.hasPrefix("HTTP/1.1 400"))
      #expect(try await Self.get(Self.url(address, "/healthz")).status == 200)
    }
  }
}

@Suite("Probe server", .timeLimit(.minutes(5)))
struct ProbeServerTests {
  struct Reason: Error, CustomStringConvertible { let description: String }

  @Test("health, readiness with reasons, metrics, and nothing else")
  func probes() async throws {
    let directory = try TemporaryDirectory()
    let isDown = Mutex(true)
    let isAlive = Mutex(true)
    let (gate, opening) = AsyncStream<Void>.makeStream()
    let registry = PrometheusRegistry()
    registry.setBuildInfo(version: "1", commit: "c", swift: "6")
    let server = ProbeServer(
      host: "127.0.0.1", unixSocket: directory.path + "/p.sock",
      checks: [
        ("redis", { if isDown.withLock({ $0 }) { throw Reason(description: "no answer from Redis") } }),
        ("slow", { if isDown.withLock({ $0 }) { for await _ in gate { break } } }), ("good", {}),
      ],
      liveness: { isAlive.withLock { $0 } }, registry: registry, logger: LiveServerTests.quiet)
    try await withRunning(server) {
      let addresses = try await server.listening()
      func get(_ path: String) async throws -> (status: Int, text: String) {
        try await LiveServerTests.get(LiveServerTests.url(addresses[1], path))
      }
      #expect(addresses.count == 2)
      var failing = try await get("/readyz")
      _ = try await eventually {
        // A machine that stands still for the two seconds of a check lets the good one be late as well.
        if failing.text.contains(#"{"name":"good","ok":true}"#) { return true }
        failing = try await get("/readyz")
        return false
      }
      #expect(failing.status == 503)
      #expect(failing.text.contains(#"{"name":"redis","ok":false,"reason":"no answer from Redis"}"#))
      #expect(failing.text.contains(#"{"name":"slow","ok":false,"reason":"there was no answer within 2.0 seconds"}"#))
      #expect(failing.text.contains(#"{"name":"good","ok":true}"#))
      opening.finish()
      isDown.withLock { $0 = false }
      let isReady = try await eventually {
        let answer = try await get("/readyz")
        return answer.status == 200 && answer.text.contains(#""status":"ok""#)
      }
      #expect(isReady)
      #expect(try await get("/healthz").status == 200)
      isAlive.withLock { $0 = false }
      #expect(try await get("/healthz").status == 503)
      #expect(try await get("/metrics").text.contains("postrider_build_info{"))
      #expect(try await get("/api/v1/whoami").status == 404)
      #expect(try await LiveServerTests.get(LiveServerTests.url(addresses[0], "/metrics")).status == 200)
    }
  }
}

extension Data {
  func write(toFile path: String) throws { try write(to: URL(filePath: path)) }
}

/// A self-signed certificate for 127.0.0.1.
func makeCertificate(_ certificate: String, _ key: String) throws {
  let process = Process()
  process.executableURL = URL(filePath: "/usr/bin/env")
  process.arguments =
    ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    + ["-subj", "/CN=127.0.0.1", "-keyout", key, "-out", certificate]
  process.standardError = FileHandle.nullDevice
  try process.run()
  process.waitUntilExit()
  try #require(process.terminationStatus == 0)
}
