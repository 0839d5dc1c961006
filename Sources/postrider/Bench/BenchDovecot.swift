import Foundation
import PrivateServers

/// A Dovecot with accounts, for the time of a benchmark.
enum BenchDovecot {
  static let password = "bench"

  static func with<Result: Sendable>(
    _ users: [String], _ leaf: TestAuthority.Leaf, in directory: DataDirectory,
    _ body: (PrivateDovecot) async throws -> Result
  ) async throws -> Result {
    var options = PrivateDovecot.Options()
    options.mechanisms = ["plain"]
    options.maximumSessions = max(500, users.count * 2)
    let dovecot = try await PrivateDovecot.start(in: directory, certificate: leaf, options: options)
    do {
      for user in users { try dovecot.addUser(user, password: password) }
      let result = try await body(dovecot)
      await dovecot.stop()
      return result
    } catch {
      await dovecot.stop()
      throw error
    }
  }
}
