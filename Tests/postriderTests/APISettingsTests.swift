import Foundation
import PostriderCore
import Testing

@testable import postrider

@Suite("TLS and proxies of the API in the configuration (D174)")
struct APISettingsTests {
  private func read(_ environment: [String: String]) -> (settings: Settings, problems: [String]) {
    Settings.read(file: nil, environment: environment)
  }

  private func openssl(_ arguments: String...) throws {
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = ["openssl"] + arguments
    process.standardError = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    try #require(process.terminationStatus == 0)
  }

  @Test("proxies are addresses and networks; anything else is told")
  func proxies() {
    let (settings, problems) = read(["POSTRIDER_API_TRUSTED_PROXIES": "10.0.0.0/8, 2001:db8::1"])
    #expect(
      problems == [] && settings.networks(.apiTrustedProxies).map(\.description) == ["10.0.0.0/8", "2001:db8::1/128"])
    let wrong = read(["POSTRIDER_API_TRUSTED_PROXIES": "10.0.0.0/8,proxy.example.com"])
    #expect(
      wrong.problems == [
        "POSTRIDER_API_TRUSTED_PROXIES: `proxy.example.com` must be an address or a network, such as 10.0.0.0/8"
      ])
    #expect(wrong.settings.networks(.apiTrustedProxies) == [])
    #expect(read([:]).settings.networks(.apiTrustedProxies) == [])
  }

  @Test("certificate and key go together; the doctor reads them as the server would")
  func certificate() async throws {
    try await withFolder { folder in
      let (certificate, key) = ("\(folder)/c.pem", "\(folder)/k.pem")
      let names = ["POSTRIDER_API_TLS_CERTIFICATE_FILE": certificate, "POSTRIDER_API_TLS_KEY_FILE": key]
      func findings(_ environment: [String: String]) async -> [Finding] {
        await Doctor(settings: read(environment).settings, problems: []).examine(.configuration)
          .filter { $0.text.contains("the API") }
      }
      #expect(try read([:]).settings.apiTLS() == nil)
      #expect(await findings([:]) == [])
      let half = read(["POSTRIDER_API_TLS_KEY_FILE": key]).settings
      let error = #expect(throws: Settings.Problems.self) { try half.apiTLS() }
      #expect(error?.lines.first?.hasPrefix("POSTRIDER_API_TLS_CERTIFICATE_FILE: is required") == true)

      #expect(await findings(names).map(\.level) == [.error])
      for (days, level, words) in [("90", Finding.Level.ok, "good for 89 days"), ("3", .warning, "good for 2 days")] {
        try openssl(
          "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", days, "-subj",
          "/CN=a", "-keyout", key, "-out", certificate)
        let found = await findings(names)
        #expect(found.map(\.level) == [level] && found.first?.text.contains(words) == true, "\(found)")
      }
      try openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
      let found = await findings(names)
      #expect(found.map(\.level) == [.error] && found.first?.text.contains("cannot serve TLS") == true, "\(found)")
    }
  }
}
