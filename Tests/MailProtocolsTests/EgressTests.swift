import PostriderCore
import PostriderTesting
import Testing

@testable import MailProtocols

@Suite("Egress policy")
struct EgressTests {
  @Test(
    "addresses that are never reached by default",
    arguments: [
      "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "169.254.0.1",
      "172.16.0.1", "172.31.255.255", "192.168.1.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
      "192.0.0.192", "168.63.129.16", "100.100.100.200", "::", "::1", "fe80::1", "febf::1", "fc00::1", "fd00:ec2::254",
      "ff02::1", "fec0::1", "::ffff:127.0.0.1", "::ffff:a00:1", "::127.0.0.1", "64:ff9b::10.0.0.1",
      "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001::1",
    ])
  func denied(text: String) throws {
    let address = try #require(IPAddress(text))
    #expect { try EgressPolicy().check(address, port: 995, host: "h") } throws: {
      ($0 as? Failure)?.code == .egressDenied
    }
  }

  @Test(
    "ordinary addresses",
    arguments: [
      "192.0.2.1", "8.8.8.8", "172.32.0.1", "172.15.255.255", "100.63.255.255", "100.128.0.1", "2606:4700::1111",
      "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1", "223.255.255.255",
    ])
  func allowed(text: String) throws {
    let address = try #require(IPAddress(text))
    for port in [110, 995, 25, 465, 587] { try EgressPolicy().check(address, port: port, host: "h") }
    for port in [22, 80, 443, 6379, 5432] {
      #expect(throws: Failure.self) { try EgressPolicy().check(address, port: port, host: "h") }
    }
  }

  @Test("the government preset")
  func government() throws {
    let policy = try EgressPolicy(ports: "us-government", allow: "")
    #expect(policy.allowedPorts == [80, 443, 465, 995])
    #expect(!policy.mayUse(port: 587) && policy.mayUse(port: 443))
  }

  @Test("allow entries")
  func entries() throws {
    let policy = try EgressPolicy(allow: "10.1.0.0/16 127.0.0.1:1110, 192.168.0.0/24:*\n[fd00::1]:2525 fd01::/16")
    func passes(_ text: String, _ port: Int) throws -> Bool {
      let address = try #require(IPAddress(text))
      return (try? policy.check(address, port: port, host: "h")) != nil
    }
    #expect(try passes("10.1.2.3", 995))
    #expect(try passes("::ffff:10.1.2.3", 995))
    #expect(try !passes("10.1.2.3", 1110))
    #expect(try !passes("10.2.0.1", 995))
    #expect(try passes("127.0.0.1", 1110))
    #expect(try !passes("127.0.0.1", 995))
    #expect(try passes("192.168.0.9", 1))
    #expect(try passes("fd00::1", 2525))
    #expect(try !passes("fd00::2", 2525))
    #expect(try passes("fd01::9", 465))
    #expect(policy.mayUse(port: 2525) && policy.mayUse(port: 4))
  }

  @Test(
    "entries that cannot be read are all named",
    arguments: ["10.0.0.0/33", "10.0.0.0/8:0", "10.0.0.0/8:x", "host.example", "10.0.0", "[fd00::1]x", "10.0.0.0/8/9"])
  func bad(entry: String) {
    #expect { _ = try EgressPolicy(ports: "995,x", allow: "10.0.0.0/8,\(entry)") } throws: {
      let problems = ($0 as? EgressPolicyError)?.problems ?? []
      return problems.count == 2 && problems[1].contains(entry)
    }
  }

  @Test(
    "the system's resolver reads odd spellings, and the check sees through them",
    arguments: [
      "2130706433", "0x7f000001", "127.1", "0177.0.0.1", "localhost",
    ])
  func spellings(host: String) async throws {
    let client = try makeClient(egress: "", resolver: SystemResolver())
    let trace = SessionTrace(direction: .incoming)
    let failure = await failure {
      _ = try await client.openPOP3(MailEndpoint(kind: .pop3, host: host, port: 995, tls: .implicit), trace: trace)
    }
    #expect(failure?.code == .egressDenied)
    #expect(trace.steps.map(\.name) == [.resolve])
  }

  @Test("one denied address among public ones denies the host")
  func mixed() async throws {
    let client = try makeClient(
      egress: "", resolver: StaticResolver(hosts: ["rebind.example.test": ["192.0.2.1", "169.254.169.254"]]))
    let failure = await failure {
      let endpoint = MailEndpoint(kind: .pop3, host: "rebind.example.test", port: 995, tls: .implicit)
      _ = try await client.openPOP3(endpoint, trace: SessionTrace(direction: .incoming))
    }
    #expect(failure?.code == .egressDenied)
    #expect(failure?.context?.contains("metadata") == true)
  }

  @Test("a session without permission opens no connection")
  func forbidden() async throws {
    let server = try await ScriptedMailServer.start([.send("+OK ready\r\n")])
    let endpoint = try await MailEndpoint.test(.pop3, server, host: "127.0.0.1")
    let client = try makeClient()
    await #expect(throws: CancellationError.self) {
      _ = try await client.openPOP3(endpoint, trace: SessionTrace(direction: .incoming)) { false }
    }
    #expect(server.connections.isEmpty)
    await server.stop()
  }

  @Test("address text", arguments: ["1.2.3", "1.2.3.4.5", "::g", "2130706433", "1.2.3.4 ", ""])
  func badAddress(text: String) { #expect(IPAddress(text) == nil) }

  @Test("ranges")
  func ranges() throws {
    let range = try #require(AddressRange("10.128.0.0/9"))
    #expect(range.contains(try #require(IPAddress("10.255.0.1"))))
    #expect(!range.contains(try #require(IPAddress("10.127.0.1"))))
    let everything = try #require(AddressRange("0.0.0.0/0"))
    #expect(everything.contains(try #require(IPAddress("1.2.3.4"))))
    #expect(!everything.contains(try #require(IPAddress("::1"))))
  }
}
