import Foundation
import PostriderCore
import PostriderTesting
import Testing

/// A `postrider dev` of a test, in a data directory of its own.
struct Development {
  let directory: String
  let program: RunningProgram

  /// The password of every account of the sandbox.
  static let password = "sandbox-password"

  /// Starts one and waits until its output holds `milestone`.
  static func start(
    _ arguments: [String], in directory: String = Self.freshDirectory(), until milestone: String
  ) async throws -> Development {
    let program = try RunningProgram(["dev", "--data", directory] + arguments)
    let development = Development(directory: directory, program: program)
    let came = await eventually(within: .seconds(300)) { program.output.contains(milestone) || !program.isRunning }
    try #require(
      came && program.output.contains(milestone),
      "no `\(milestone)` in:\n\(program.output)\n\(program.errors)\n\(development.log)")
    return development
  }

  static func freshDirectory() -> String { "/tmp/pr-e2e-\(UUID().uuidString.prefix(8).lowercased())" }

  /// The log of the process.
  var log: String {
    String(decoding: FileManager.default.contents(atPath: "\(directory)/logs/postrider.log") ?? Data(), as: UTF8.self)
  }

  /// Runs an administration command against it.
  func cli(_ arguments: String..., input: String = "") async throws -> Program.Result {
    try await Program.run(arguments, environment: ["POSTRIDER_DATA": directory], input: input)
  }

  /// Runs a command with `--json` and reads its answer.
  func json<Value: Decodable>(_ type: Value.Type, _ arguments: String..., input: String = "") async throws -> Value {
    let result = try await Program.run(
      arguments + ["--json"], environment: ["POSTRIDER_DATA": directory], input: input)
    try #require(result.exitCode == 0, "\(arguments): \(result.errors)")
    let decoder = JSONDecoder()
    decoder.dateDecodingStrategy = .custom { decoder in
      let text = try decoder.singleValueContainer().decode(String.self)
      return try Date(text, strategy: Date.ISO8601FormatStyle(includingFractionalSeconds: true))
    }
    return try decoder.decode(type, from: Data(result.output.utf8))
  }

  /// The Message-IDs that the sandbox delivered to an address, by its own list.
  func delivered(to address: String) -> [String] {
    let text = String(decoding: FileManager.default.contents(atPath: "\(directory)/delivered") ?? Data(), as: UTF8.self)
    var messageIDs: [String] = []
    for line in text.split(separator: "\n") {
      let fields = line.split(separator: "\t")
      if fields.count == 2, fields[0] == address {
        messageIDs.append(fields[1].trimmingCharacters(in: CharacterSet(charactersIn: "<>")))
      }
    }
    return messageIDs
  }

  /// How often each Message-ID is stored for an address.
  func stored(for address: String) async throws -> [String: Int] {
    let page = try await json(Page<EmailRecord>.self, "email", "list", "--mailbox", address, "--limit", "500")
    return Dictionary(page.items.compactMap(\.envelope.messageID).map { ($0, 1) }, uniquingKeysWith: +)
  }

  /// Processes whose command line names the data directory or its sockets.
  func processes() -> [String] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []
    return names.filter { Int32($0) != nil }.compactMap { pid in
      let line = String(
        decoding: FileManager.default.contents(atPath: "/proc/\(pid)/cmdline") ?? Data(), as: UTF8.self
      ).replacingOccurrences(of: "\0", with: " ")
      return line.contains(directory) ? "\(pid) \(line)" : nil
    }
  }

  /// Ends it as Ctrl-C does and removes its data.
  func end() async throws {
    program.signal(SIGINT)
    let code = await program.exit()
    #expect(code == 0, "\(program.errors)")
    #expect(await eventually { processes().isEmpty }, "left behind: \(processes())")
    program.forget()
    try FileManager.default.removeItem(atPath: directory)
  }
}
