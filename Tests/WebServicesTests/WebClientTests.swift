import Foundation
import MailProtocols
import PostriderCore
import PostriderTesting
import PrivateServers
import Testing
import WebServices

@Suite("Calls of web services: egress policy, TLS, bounds (features N1, N2, N6)")
struct WebClientTests {
  private func url(_ text: String) throws -> WebURL { try #require(WebURL(text), "\(text)") }

  @Test(
    "addresses that lead inside are refused, however they are written",
    arguments: [
      "https://127.0.0.1/", "https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/", "https://127.1/",
      "https://localhost/", "https://LOCALHOST/", "https://[::1]/", "https://[::ffff:127.0.0.1]/",
      "https://[64:ff9b::7f00:1]/", "https://[2002:7f00:1::]/", "https://169.254.169.254/latest/meta-data/",
      "https://[fd00:ec2::254]/", "https://10.0.0.7/", "https://192.168.1.1/", "https://100.64.0.1/",
      "https://0.0.0.0/",
      "https://metadata.test/", "https://mixed.test/", "https://rebound.test/",
    ])
  func inside(_ text: String) async throws {
    let names = CountingNames([
      "metadata.test": ["169.254.169.254"], "mixed.test": ["93.184.216.34", "10.0.0.7"],
      "rebound.test": ["::ffff:127.0.0.1"],
    ])
    let client = try WebClient(egress: EgressPolicy(), resolver: names)
    let failure = await failure { _ = try await client.send(WebClient.Request(try url(text))) }
    #expect(failure?.code == .egressDenied, "\(String(describing: failure))")
  }

  @Test("only port 443 may be used unless the operator allows more; mail's ports are not the web's")
  func ports() async throws {
    let client = try WebClient(egress: EgressPolicy(allow: "192.0.2.0/24:8443"))
    for (text, isAllowed) in [
      ("https://example.com/", true), ("https://example.com:8443/", true), ("https://example.com:8444/", false),
      ("https://example.com:995/", false), ("https://example.com:25/", false),
    ] {
      let failure = await failure { try client.check(try url(text)) }
      #expect((failure == nil) == isAllowed, "\(text): \(String(describing: failure))")
    }
  }

  @Test(
    "only plain absolute addresses are taken",
    arguments: [
      "ftp://a.example/", "https://", "https:///x", "https://user@a.example/", "https://user:pw@a.example/",
      "https://a.example/#x", "https://a.example\\@b.example/", "https://a.example:0/", "https://a.example:65536/",
      "https://a.example:+443/", "https://a b.example/", "https://a.example/\n", "https://ä.example/",
      "https://[::1/", "https://[a.example]/", "javascript:alert(1)", "//a.example/", "https://a..example/",
    ])
  func malformed(_ text: String) { #expect(WebURL(text) == nil) }

  @Test("what is read is written as it was meant")
  func written() throws {
    #expect(try url("HTTPS://A.Example:443/x?y=z").description == "https://a.example/x?y=z")
    #expect(try url("https://a.example?x=1").description == "https://a.example/?x=1")
    #expect(try url("http://[::1]:8080").description == "http://[::1]:8080/")
    #expect(
      try url("https://a.example/x?y=1").adding([("a b", "c&d=ä")]) == "https://a.example/x?y=1&a%20b=c%26d%3D%C3%A4")
  }

  @Test("a name is looked up once and the connection goes to what was checked; the name stays in Host")
  func literal() async throws {
    let server = try await TestHTTPServer.start { _ in TestHTTPServer.Response(200, "here") }
    let names = CountingNames(["service.test": ["127.0.0.1"]])
    let client = try loopbackClient(names)
    let answer = try await client.send(
      WebClient.Request(try url(server.url("/a?b=c", host: "service.test")), body: [1, 2]))
    #expect(answer.status == 200 && String(decoding: answer.body, as: UTF8.self) == "here")
    let request = try #require(server.requests.first)
    #expect(request.method == "POST" && request.body == [1, 2] && request.query == ["b": "c"])
    #expect(request.headers["host"] == "service.test:\(server.port)" && names.count("service.test") == 1)
    await server.stop()
  }

  @Test("without TLS only this machine is called, whatever the policy allows")
  func plain() async throws {
    let client = try WebClient(
      egress: EgressPolicy(allow: "192.0.2.1/32:*"), resolver: CountingNames(["service.test": ["192.0.2.1"]]))
    let failure = await failure { _ = try await client.send(WebClient.Request(try url("http://service.test:80/"))) }
    #expect(failure?.code == .egressDenied && failure?.context?.contains("no TLS") == true)
  }

  @Test("a redirect is an answer and is not followed")
  func redirect() async throws {
    let server = try await TestHTTPServer.start { request in
      request.path == "/a" ? TestHTTPServer.Response(302, headers: [("Location", "/b")]) : TestHTTPServer.Response(200)
    }
    let answer = try await loopbackClient().send(WebClient.Request(try url(server.url("/a"))))
    #expect(answer.status == 302 && server.requests.count == 1)
    await server.stop()
  }

  @Test("an answer that does not end is cut, and one that does not come is given up")
  func bounds() async throws {
    let never = ScriptSignal()
    let server = try await TestHTTPServer.start { request in
      if request.path == "/silent" { return TestHTTPServer.Response(200, after: never) }
      var response = TestHTTPServer.Response(200, String(repeating: "x", count: 65_536))
      response.repetitions = 10_000
      return response
    }
    let client = try loopbackClient()
    let answer = try await client.send(WebClient.Request(try url(server.url("/endless")), maximumOctets: 1_000))
    #expect(answer.body.count == 1_000 && answer.isCut)
    let failure = await failure {
      _ = try await client.send(WebClient.Request(try url(server.url("/silent")), timeout: .milliseconds(300)))
    }
    #expect(failure?.code == .tcpTimeout)
    never.fire()
    await server.stop()
    // Its own port may be somebody else's by now.
    let nobody = try LoopbackPort.free()
    let gone = await WebServicesTests.failure {
      _ = try await client.send(WebClient.Request(try url("http://127.0.0.1:\(nobody)/")))
    }
    #expect(gone?.code == .tcpRefused, "\(String(describing: gone))")
  }

  @Test("an address that refuses is followed by the next one")
  func nextAddress() async throws {
    let server = try await TestHTTPServer.start { _ in TestHTTPServer.Response(200, "second") }
    // The server listens on the second one alone.
    let client = try loopbackClient(CountingNames(["service.test": ["127.0.0.2", "127.0.0.1"]]))
    let answer = try await client.send(WebClient.Request(try url(server.url("/", host: "service.test")), body: [1]))
    #expect(String(decoding: answer.body, as: UTF8.self) == "second")
    #expect(server.requests.count == 1)
    await server.stop()
  }

  @Test("a connection that breaks when the request is on its way ends the call: nothing is posted twice")
  func postedOnce() async throws {
    let resets = ScriptSignal()
    // What was not read makes the system answer with a reset.
    let server = try await ScriptedMailServer.start([.expect("POST "), .stopReading, .wait(resets), .close])
    let client = try loopbackClient(CountingNames(["service.test": ["127.0.0.1", "127.0.0.1"]]))
    // More than the buffers of both sides take.
    let request = WebClient.Request(
      try url("http://service.test:\(server.port)/token"), body: [UInt8](repeating: 120, count: 32 << 20))
    async let call = failure { _ = try await client.send(request) }
    #expect(await server.wait { $0.first?.lines.isEmpty == false })
    resets.fire()
    let broken = await call
    #expect(broken?.code == .tcpClosed, "\(String(describing: broken))")
    #expect(server.connections.count == 1)
    await server.stop()
  }

  @Test("TLS is verified against the name, although the connection goes to an address")
  func tls() async throws {
    let data = try await TestServers.shared.dedicatedDirectory(named: "web-tls")
    let authority = try await TestAuthority.open(in: "\(data.path)/authority")
    let leaf = try await authority.leaf("service", for: ["service.test"])
    let server = try await TestHTTPServer.start(certificate: (leaf.certificatePath, leaf.keyPath)) { _ in
      TestHTTPServer.Response(200, "safe")
    }
    let names = CountingNames(["service.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]])
    let trusting = try loopbackClient(names, trustRootsPEM: authority.certificatePEM)
    let good = try await trusting.send(WebClient.Request(try url(server.url("/", host: "service.test"))))
    #expect(String(decoding: good.body, as: UTF8.self) == "safe")
    let wrongName = await failure {
      _ = try await trusting.send(WebClient.Request(try url(server.url("/", host: "other.test"))))
    }
    let untrusted = await failure {
      _ = try await loopbackClient(names).send(WebClient.Request(try url(server.url("/", host: "service.test"))))
    }
    #expect(wrongName?.code == .tlsHandshake && untrusted?.code == .tlsHandshake)
    await server.stop()
  }
}
