import AsyncHTTPClient
import Foundation
import HTTPTypes
import NIOCore
import PostriderCore
import PostriderTesting
import Testing

@testable import AdminServer

@Suite("The client behind trusted proxies (D174)", .timeLimit(.minutes(5)))
struct TrustedProxyTests {
  private static let proxies = TrustedProxies(
    ["10.0.0.0/8", "192.0.2.7", "2001:db8:aa::/48"].compactMap { AddressRange($0) })

  @Test(
    "the rightmost address that is no proxy's",
    arguments: [
      // Peer, header, client.
      ("10.0.0.1", [], "10.0.0.1"), ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
      ("203.0.113.5", ["198.51.100.1"], "203.0.113.5"),
      ("10.0.0.1", ["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
      ("10.0.0.1", ["198.51.100.1", "203.0.113.9, 10.2.3.4", " 192.0.2.7 "], "203.0.113.9"),
      ("10.0.0.1", ["10.0.0.9, 10.0.0.8"], "10.0.0.9"), ("10.0.0.1", ["203.0.113.9, unknown"], "10.0.0.1"),
      ("10.0.0.1", ["203.0.113.9, , 10.0.0.3"], "10.0.0.3"), ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
      ("10.0.0.1", ["[2001:db8::5]:4711"], "2001:db8::5"), ("2001:db8:aa::1", ["2001:db8::5"], "2001:db8::5"),
      ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"), ("::ffff:203.0.113.5", ["198.51.100.1"], "203.0.113.5"),
      ("10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
    ])
  func client(peer: String, forwarded: [String], client: String) throws {
    var headers = HTTPFields()
    for value in forwarded { headers.append(HTTPField(name: .forwardedFor, value: value)) }
    // Not read: who does not write it passes on what a client wrote.
    headers[try #require(HTTPField.Name("Forwarded"))] = "for=198.51.100.77;proto=https"
    let address = try SocketAddress(ipAddress: peer, port: 5_000)
    #expect(Self.proxies.client(address, headers)?.description == client)
    #expect(!Self.proxies.saysSecure(address, headers))
  }

  @Test("only a trusted proxy says that it was asked over TLS, and only by the last word")
  func secure() throws {
    for (peer, words, expected) in [
      ("10.9.9.9", ["https"], true), ("10.9.9.9", ["http", "HTTPS"], true), ("10.9.9.9", ["https", "http"], false),
      ("10.9.9.9", [], false), ("203.0.113.5", ["https"], false), ("::ffff:10.9.9.9", ["https"], true),
    ] {
      var headers = HTTPFields()
      for word in words { headers.append(HTTPField(name: .forwardedProtocol, value: word)) }
      #expect(
        Self.proxies.saysSecure(try SocketAddress(ipAddress: peer, port: 1), headers) == expected, "\(peer) \(words)")
    }
    #expect(!Self.proxies.saysSecure(try SocketAddress(unixDomainSocketPath: "/x"), [.forwardedProtocol: "https"]))
    #expect(Self.proxies.client(try SocketAddress(unixDomainSocketPath: "/x"), [.forwardedFor: "1.2.3.4"]) == nil)
  }

  @Test("attempts of one IPv6 network are counted together, IPv4 addresses each for itself, mapped ones too")
  func groups() {
    func group(_ text: String) -> String? { IPAddress(text)?.signInGroup }
    #expect(
      group("2001:db8:1:2::5") == group("2001:db8:1:2:ffff::9") && group("2001:db8:1:3::5") != group("2001:db8:1:2::5"))
    #expect(group("::ffff:203.0.113.9") == "203.0.113.9" && group("::ffff:203.0.113.8") != group("203.0.113.9"))
  }

  private func attempt(_ address: BoundAddress, from forwarded: String?) async throws -> Int {
    var request = HTTPClientRequest(url: LiveServerTests.url(address, "/api/v1/sessions"))
    request.method = .POST
    if let forwarded { request.headers.add(name: "X-Forwarded-For", value: forwarded) }
    request.headers.add(name: "X-Forwarded-Proto", value: "https")
    request.body = .bytes(
      ByteBuffer(string: #"{"organization":"Example","address":"a@example.com","password":"a wrong password"}"#))
    let answer = try await HTTPClient.shared.execute(request, timeout: .seconds(60))
    _ = try await answer.body.collect(upTo: 1 << 16)
    return Int(answer.status.code)
  }

  @Test("attempts to sign in are limited by the real client; a made-up header neither escapes nor blames others")
  func limits() async throws {
    let log = CapturedLog()
    for isTrusted in [true, false] {
      var configuration = AdminServerConfiguration(tcp: TCPListener(port: 0))
      configuration.allowsCredentialsEntryViaNonSecureChannels = true
      configuration.signInLimit = SignInLimiter.Limit(burst: 2, refill: .seconds(3_600))
      configuration.passwordCost = PasswordCost(logN: 4, blockSize: 1, parallelism: 1)
      if isTrusted { configuration.trustedProxies = ["127.0.0.0/8"].compactMap { AddressRange($0) } }
      let server = AdminServer(
        configuration: configuration, store: FakeAdminStore(), queue: FakeQueue(), logger: log.logger)
      try await withRunning(server) {
        let address = try await server.listening()[0]
        if isTrusted {
          // The client writes what it likes in front; what the proxy appended counts.
          for spoofed in ["198.51.100.1", "198.51.100.2"] {
            #expect(try await attempt(address, from: "\(spoofed), 203.0.113.9") == 401)
          }
          #expect(try await attempt(address, from: "198.51.100.3, 203.0.113.9") == 429)
          #expect(try await attempt(address, from: "203.0.113.10") == 401)
          #expect(try await attempt(address, from: nil) == 401)
        } else {
          for spoofed in ["198.51.100.1", "198.51.100.2"] {
            #expect(try await attempt(address, from: spoofed) == 401)
          }
          #expect(try await attempt(address, from: "198.51.100.3") == 429)
        }
      }
    }
    // The log names who it was.
    #expect(log.text.contains("203.0.113.9") && !log.text.contains("198.51.100"))
  }
}
