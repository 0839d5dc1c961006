import Foundation
import Subprocess

#if canImport(System)
  import System
#else
  import SystemPackage
#endif

/// What a run of the program left behind.
struct ProgramResult: Sendable {
  var exitCode: Int
  var output: String
  var errors: String
}

/// Runs the program that was built beside the tests.
enum Program {
  private static let path: String = {
    let folder = Bundle.main.executableURL?.deletingLastPathComponent() ?? URL(filePath: ".")
    return folder.appending(path: "postrider").path
  }()

  /// Runs it with an environment of its own, so that nothing of the developer's reaches the tests.
  static func run(
    _ arguments: [String], environment: [String: String] = [:], input: String = ""
  ) async throws -> ProgramResult {
    var variables: [Environment.Key: String] = ["PATH": "/usr/bin:/bin", "POSTRIDER_DATA": "/nonexistent/postrider"]
    for (name, value) in environment { variables[Environment.Key(stringLiteral: name)] = value }
    let result = try await Subprocess.run(
      .path(FilePath(path)), arguments: Arguments(arguments), environment: .custom(variables), input: .string(input),
      output: .string(limit: 4 << 20), error: .string(limit: 4 << 20))
    let code =
      switch result.terminationStatus {
      case .exited(let code): Int(code)
      default: -1
      }
    return ProgramResult(exitCode: code, output: result.standardOutput, errors: result.standardError)
  }
}

extension StubAPI {
  /// Runs the program against this stub.
  func run(
    _ arguments: String..., environment: [String: String] = [:], input: String = ""
  ) async throws -> ProgramResult {
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
