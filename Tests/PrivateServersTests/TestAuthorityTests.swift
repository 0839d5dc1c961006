import PostriderTesting
import Testing

@testable import PrivateServers

@Suite("Test authority")
struct TestAuthorityTests {
  @Test("its certificates are good, expired, too early or for another name, as asked")
  func leaves() async throws {
    let data = try await TestServers.shared.dedicatedDirectory()
    let authority = try await TestAuthority.open(in: data.path + "/authority")
    #expect(authority.certificatePEM.hasPrefix("-----BEGIN CERTIFICATE-----"))
    let openssl = try Programs.find("openssl", package: "openssl")
    func verify(_ leaf: TestAuthority.Leaf, _ options: [String]) async throws -> String {
      do {
        return try await Command.run(
          openssl, ["verify", "-CAfile", authority.certificatePath] + options + [leaf.certificatePath])
      } catch PrivateServerError.command(_, _, let output) { return output }
    }
    let good = try await authority.leaf("good", for: ["mail.sandbox.test", "127.0.0.1", "::1"])
    #expect(try await verify(good, ["-verify_hostname", "mail.sandbox.test"]).hasSuffix(": OK\n"))
    #expect(try await verify(good, ["-verify_ip", "127.0.0.1"]).hasSuffix(": OK\n"))
    #expect(try await verify(good, ["-verify_ip", "::1"]).hasSuffix(": OK\n"))
    #expect(try await verify(good, ["-verify_hostname", "other.test"]).contains("hostname mismatch"))
    #expect(good.keyPEM.contains("PRIVATE KEY"))
    let expired = try await authority.leaf("expired", for: ["mail.sandbox.test"], validity: .expired)
    #expect(try await verify(expired, []).contains("certificate has expired"))
    let early = try await authority.leaf("early", for: ["mail.sandbox.test"], validity: .notYet)
    #expect(try await verify(early, []).contains("certificate is not yet valid"))
    // A second opening finds the same authority.
    #expect(try await TestAuthority.open(in: data.path + "/authority").certificatePEM == authority.certificatePEM)
  }
}
