import ArgumentParser
import AsyncHTTPClient
import Foundation
import NIOCore

/// `postrider health`
struct HealthCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "health", abstract: "Asks the process on this machine or in this container whether it is well.",
    discussion: """
      Asks /healthz (or /readyz with --ready) on probe.port. For container health checks: no curl is needed.
      Exit code 0 when well, 1 when not, 69 when nothing answers.

      Example: postrider health --ready
      """)

  @OptionGroup var role: RoleOptions

  @Flag(name: .long, help: "Also ask whether the services that the process needs answer.")
  var ready = false

  func run() async throws {
    let settings = try await role.settings(required: [])
    let configured = settings.text(.probeHost) ?? "127.0.0.1"
    let host = ["0.0.0.0", "::"].contains(configured) ? "127.0.0.1" : configured
    let url = "http://\(host):\(settings.number(.probePort))/\(ready ? "readyz" : "healthz")"
    let response: HTTPClientResponse
    do {
      response = try await HTTPClient.shared.execute(HTTPClientRequest(url: url), timeout: .seconds(4))
    } catch {
      throw ServiceUnreachable(description: "nothing answers at \(url)")
    }
    let body = try await response.body.collect(upTo: 65_536)
    print(String(buffer: body).trimmingCharacters(in: .whitespacesAndNewlines))
    if response.status != .ok { throw ExitCode(1) }
  }
}
