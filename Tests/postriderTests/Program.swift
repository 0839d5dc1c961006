import Foundation
import PostriderTesting

extension StubAPI {
  /// Runs the program against this stub.
  func run(
    _ arguments: String..., environment: [String: String] = [:], input: String = ""
  ) async throws -> Program.Result {
    var variables = ["POSTRIDER_API_URL": url, "POSTRIDER_TOKEN": "test-token"]
    variables.merge(environment) { _, new in new }
    return try await Program.run(arguments, environment: variables, input: input)
  }
}

/// A folder that goes away with the test.
func withFolder(_ body: (String) async throws -> Void) async throws {
  let folder = FileManager.default.temporaryDirectory.appending(path: "cli-\(UUID().uuidString.prefix(8))").path
  try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(atPath: folder) }
  try await body(folder)
}
