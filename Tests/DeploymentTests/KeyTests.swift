import Foundation
import PostgresStore
import PostriderCore
import PostriderTesting
import PrivateServers
import Testing

/// A new key comes in and the old one goes, by the commands, while workers log in with what is encrypted.
@Suite("Rotating keys")
struct KeyTests {
  private struct Status: Decodable {
    struct Key: Decodable {
      var id: String
      var state: String
      var secrets: Int
      var readable: Bool
    }

    var keys: [Key]
  }

  private func status(_ installation: Installation, _ file: String) async throws -> (code: Int, status: Status) {
    let running = try RunningProgram(
      ["keys", "status", "--json"], environment: environment(installation, file))
    let code = await running.exit()
    defer { running.forget() }
    return (code, try JSONDecoder().decode(Status.self, from: Data(running.output.utf8)))
  }

  private func environment(_ installation: Installation, _ file: String) -> [String: String] {
    var variables = installation.environment
    variables["POSTRIDER_KEYS_RING"] = nil
    variables["POSTRIDER_KEYS_FILE"] = file
    return variables
  }

  /// A command over the ring's file.
  private func keys(
    _ installation: Installation, _ file: String, _ arguments: String...
  ) async throws -> CommandResult {
    let running = try RunningProgram(["keys"] + arguments, environment: environment(installation, file))
    let code = await running.exit()
    defer { running.forget() }
    return CommandResult(exitCode: code, output: running.output, errors: running.errors)
  }

  @Test("generate, add, promote, rotate and retire while polls go on; then a lost key is named wherever it is missed")
  func rotation() async throws {
    let redis = try await TestServers.shared.dedicatedRedis()
    let office = try await PostOffice.open()
    let folder = "/tmp/pr-keys-\(UUID().uuidString.prefix(8).lowercased())"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    let file = "\(folder)/keys"
    let made = try await Program.run(["keys", "generate", "--file", file])
    #expect(made.exitCode == 0)
    func ring() throws -> String { try String(contentsOfFile: file, encoding: .utf8) }
    let first = try KeyRing(Secret(try ring())).ids[0]
    let installation = try Installation(
      .init(
        databaseURL: try await TestServers.shared.freshDatabase(), redisURL: redis.url, keys: try ring()),
      office: office)
    try await installation.command("migrate")
    let token = try await installation.initialize()
    let scheduler = try installation.start("scheduler")
    var worker = try installation.start("worker")
    var api = try installation.start("api")
    try await api.waitUntilReady()
    let addresses = try await installation.furnish(token, mailboxes: 3)
    func poll() async throws {
      for address in addresses { office.deliver(to: address) }
      try await installation.many(token, ["mailbox", "poll"], addresses)
    }
    func restart() async throws {
      await worker.stop()
      await api.stop()
      worker = try installation.start("worker", keys: try ring())
      api = try installation.start("api", keys: try ring())
      try await api.waitUntilReady()
    }
    try await poll()
    let begin = try await status(installation, file)
    #expect(begin.code == 0 && begin.status.keys.map(\.id) == [first] && begin.status.keys[0].secrets == 3)

    // The new key is there before it encrypts.
    let added = try await keys(installation, file, "add", "--file", file, "--id", "second")
    #expect(added.exitCode == 0 && added.output.contains("keys promote second"), "\(added)")
    #expect(try await keys(installation, file, "add", "--file", file, "--id", "second").exitCode == 1)
    #expect(try KeyRing(Secret(try ring())).ids == [first, "second"])
    let mode = try FileManager.default.attributesOfItem(atPath: file)[.posixPermissions] as? Int
    #expect(mode == 0o600)
    try await restart()
    try await poll()
    #expect(try await keys(installation, file, "promote", "second", "--file", file).exitCode == 0)
    #expect(try KeyRing(Secret(try ring())).ids == ["second", first])
    let early = try await keys(installation, file, "retire", first, "--file", file)
    #expect(early.exitCode == 1 && early.errors.contains("3 secrets are still encrypted with \(first)"), "\(early)")

    // While the worker, which does not encrypt with it yet, polls.
    let polls = Task { for _ in 0..<3 { try await poll() } }
    let dry = try await keys(installation, file, "rotate", "--dry-run")
    #expect(dry.exitCode == 0 && dry.output.contains("3 secrets would be encrypted anew with second"), "\(dry)")
    let rotated = try await keys(installation, file, "rotate")
    #expect(
      rotated.exitCode == 0 && rotated.output.contains("3 secrets encrypted anew with second, 0 were"), "\(rotated)")
    try await polls.value
    try await restart()
    try await poll()
    let end = try await status(installation, file)
    #expect(end.status.keys.map(\.secrets) == [3, 0] && end.status.keys.map(\.state) == ["encrypts", "decrypts"])
    #expect(try await keys(installation, file, "retire", "second", "--file", file).exitCode == 1)
    #expect(try await keys(installation, file, "retire", first, "--file", file).exitCode == 0)
    #expect(try KeyRing(Secret(try ring())).ids == ["second"])
    try await restart()
    try await poll()
    try await installation.expectNothingLostOrDoubled(token, addresses)

    // The file is lost, and somebody makes another.
    try FileManager.default.removeItem(atPath: file)
    #expect(try await Program.run(["keys", "generate", "--file", file]).exitCode == 0)
    let lost = try await status(installation, file)
    #expect(lost.code == 1 && lost.status.keys.last?.id == "second" && lost.status.keys.last?.state == "missing")
    let useless = try await keys(installation, file, "rotate")
    #expect(useless.exitCode == 1 && useless.errors.contains("their key second is not in the ring"), "\(useless)")
    await worker.stop()
    worker = try installation.start("worker", keys: try ring())
    let failed = try await installation.admin(token, ["mailbox", "poll", addresses[0], "--timeout", "300"])
    #expect(failed.exitCode == 1, "\(failed)")
    let runs = try await installation.json(
      Page<RunRecord>.self, token, "run", "list", "--result", "failure", "--limit", "1")
    let run = try #require(runs.items.first?.failure)
    #expect(run.code == .credentialsUnreadable && run.context?.contains("its key second is not") == true, "\(run)")
    #expect(worker.program.errors.contains("the encryption key second is not in the key ring"))

    for process in [scheduler, worker, api] {
      await process.stop()
      process.program.forget()
    }
    await office.close()
    installation.forget()
    try FileManager.default.removeItem(atPath: folder)
    await redis.stop()
  }
}
