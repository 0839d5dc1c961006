import Foundation
import PostriderCore
import PostriderTesting
import Testing

#if canImport(FoundationNetworking)
  import FoundationNetworking
#endif

/// What a stranger does first, with the real program and real servers.
@Suite("postrider dev --sandbox")
struct QuickstartTests {
  @Test("--once ends with 0 when everything was seen to work, twice on the same data, and leaves no process behind")
  func once() async throws {
    let directory = Development.freshDirectory()
    for _ in 1...2 {
      let program = try RunningProgram(["dev", "--data", directory, "--sandbox", "--mailboxes", "3", "--once"])
      let code = await program.exit()
      let development = Development(directory: directory, program: program)
      #expect(code == 0, "\(program.output)\n\(program.errors)\n\(development.log)")
      #expect(program.output.contains("Everything worked."))
      #expect(program.output.contains("user03@sandbox.test"))
      #expect(await eventually { development.processes().isEmpty }, "left behind: \(development.processes())")
      program.forget()
    }
    // The passwords in the database are worth nothing without the ring, and a new one would not read them.
    try FileManager.default.removeItem(atPath: "\(directory)/keys")
    let withoutKeys = try await Program.run(["dev", "--data", directory])
    #expect(withoutKeys.exitCode == 1 && withoutKeys.errors.contains("keys"), "\(withoutKeys.errors)")
    try FileManager.default.removeItem(atPath: directory)
  }

  @Test("--once ends with a reason when it saw too little")
  func onceFails() async throws {
    let directory = Development.freshDirectory()
    let result = try await Program.run(
      ["dev", "--data", directory, "--sandbox", "--mailboxes", "1", "--once", "--timeout", "1"])
    #expect(result.exitCode == 1)
    // On a slow machine it is over before the test & enable was.
    let reasons = ["user01@sandbox.test", "not every mailbox was tested"]
    #expect(reasons.contains { result.errors.contains($0) }, "\(result.errors)")
    try FileManager.default.removeItem(atPath: directory)
  }

  @Test("a stranger connects one more mailbox with the commands alone, and extra workers may be killed")
  func stranger() async throws {
    let development = try await Development.start(["--sandbox", "--mailboxes", "2"], until: "One account is free")
    let guest = "guest@sandbox.test"
    let profiles = try await development.json(Page<ServerProfile>.self, "profile", "list")
    #expect(profiles.items.map(\.name) == ["Sandbox"])

    // The wrong password first: refused with the step, the code and what to do.
    let created = try await development.json(
      Mailbox.self, "mailbox", "create", "--address", guest, "--profile", "Sandbox", "--password-stdin",
      input: "wrong-canary-4711\n")
    #expect(created.approval == .pending && created.passwordSet)
    let early = try await development.cli("mailbox", "test", guest)
    #expect(early.exitCode == 1 && (early.output + early.errors).contains("approve"))
    #expect(try await development.cli("mailbox", "approve", guest).exitCode == 0)
    let refused = try await development.cli("mailbox", "test", guest)
    #expect(refused.exitCode == 1)
    #expect((refused.output + refused.errors).contains("auth.rejected"), "\(refused.output)\(refused.errors)")
    let alerts = try await development.json(Page<Alert>.self, "alert", "list", "--mailbox", guest)
    #expect(alerts.items.contains { $0.level == .error && $0.code.hasPrefix("auth.rejected") && $0.remedy != nil })
    let failed = try await development.json(Mailbox.self, "mailbox", "show", guest)
    #expect(
      failed.incoming.status == .failure && !failed.incoming.enabled && failed.testsServed == failed.testsRequested)
    let run = try await development.json(
      RunRecord.self, "run", "show", "\(failed.lastTestRunID.map(\.description) ?? "")")
    #expect(run.steps.contains { $0.name == .authenticate && $0.result == .failed && $0.remedy != nil })
    #expect(run.steps.contains { $0.name == .tls && $0.result == .ok })

    // A second account with the right one. user01 is the sandbox's own; the guest's address is taken now.
    let again = try await development.cli(
      "mailbox", "create", "--address", guest, "--profile", "Sandbox", "--password-stdin",
      input: Development.password)
    #expect(again.exitCode == 1 && again.errors.contains("address-taken"), "\(again.errors)")

    try await killWorkers(of: development)
    try await noSecrets(
      in: development, said: refused.output + refused.errors, ["wrong-canary-4711", Development.password])
    try await secondDevelopment(of: development)
    try await development.end()
  }

  /// Two more workers, one killed while it polls: nothing is lost, nothing is stored twice.
  private func killWorkers(of development: Development) async throws {
    let address = "user01@sandbox.test"
    var workers: [RunningProgram] = []
    for _ in 1...2 { workers.append(try RunningProgram(["worker", "--data", development.directory])) }
    for worker in workers {
      #expect(await eventually { worker.errors.contains("Working") }, "\(worker.errors)")
    }
    // Which worker gets a poll is chance: poll until each of the extra ones had some, killing one in between.
    var killed = false
    for round in 1...60 {
      _ = try await development.cli("mailbox", "poll", address, "user02@sandbox.test", "--no-wait")
      let runs = try await development.json(Page<RunRecord>.self, "run", "list", "--kind", "poll", "--limit", "200")
      let seen = Set(runs.items.compactMap { $0.worker.split(separator: "-").dropFirst().first.flatMap { Int32($0) } })
      if !killed, seen.contains(workers[0].processID), round > 3 {
        workers[0].signal(SIGKILL)
        killed = true
      }
      if killed && seen.contains(workers[1].processID) { break }
    }
    #expect(killed, "the first extra worker never ran a poll")
    let delivered = development.delivered(to: address)
    #expect(!delivered.isEmpty)
    // The longest way: a lease of the killed worker has to end first.
    let complete = try await eventually(within: .seconds(180)) {
      _ = try await development.cli("mailbox", "poll", address, "--no-wait")
      let stored = try await development.stored(for: address)
      return delivered.allSatisfy { stored[$0] != nil }
    }
    #expect(complete)
    let stored = try await development.stored(for: address)
    #expect(stored.values.allSatisfy { $0 == 1 })
    workers[1].signal(SIGTERM)
    #expect(await workers[1].exit() == 0, "\(workers[1].errors)")
    for worker in workers { worker.forget() }
  }

  /// Keys and values of a Redis, whatever their type.
  private static let everything = """
    local all = {}
    local function take(v) if type(v) == 'table' then for _, e in ipairs(v) do take(e) end
      else all[#all + 1] = tostring(v) end end
    local read = {hash = {'HGETALL'}, string = {'GET'}, set = {'SMEMBERS'}, zset = {'ZRANGE', 0, -1},
      list = {'LRANGE', 0, -1}, stream = {'XRANGE', '-', '+'}}
    for _, k in ipairs(redis.call('KEYS', '*')) do
      take(k)
      local how = read[redis.call('TYPE', k).ok]
      take(redis.call(how[1], k, unpack(how, 2)))
    end
    return all
    """

  /// Neither logs nor tables nor Redis nor metrics nor what commands say hold a password.
  private func noSecrets(in development: Development, said: String, _ secrets: [String]) async throws {
    let cluster = String(
      decoding: FileManager.default.contents(atPath: "\(development.directory)/cluster.env") ?? Data(), as: UTF8.self)
    let values = Dictionary(
      cluster.split(separator: "\n").compactMap { line in
        // In single quotes, and nothing in these values has one.
        line.firstIndex(of: "=").map {
          (String(line[..<$0]), line[line.index(after: $0)...].trimmingCharacters(in: ["'"]))
        }
      }, uniquingKeysWith: { $1 })
    let dump = try await shell("pg_dump", ["--inserts", values["POSTRIDER_DATABASE_URL"] ?? ""])
    #expect(dump.contains("user01@sandbox.test"))
    let socket = (values["POSTRIDER_REDIS_URL"] ?? "").replacingOccurrences(of: "unix://", with: "")
    let redis = try await shell("redis-cli", ["-s", socket, "EVAL", Self.everything, "0"])
    #expect(redis.contains("epoch") && redis.contains("worker-slots"), "\(redis)")
    let address = try #require(development.program.output.firstMatch(of: /http:\/\/127\.0\.0\.1:\d+/)).output
    let (page, _) = try await URLSession.shared.data(from: try #require(URL(string: "\(address)/metrics")))
    let metrics = String(decoding: page, as: UTF8.self)
    #expect(metrics.contains(#"error_class="credential",kind="test",outcome="failure"} 1"#), "\(metrics)")
    for secret in secrets {
      let octets = Data(secret.utf8)
      for form in [secret, octets.base64EncodedString(), octets.map { String(format: "%02x", $0) }.joined()] {
        for place in [dump, redis, metrics, said, development.log] { #expect(!place.contains(form), "\(form)") }
      }
    }
  }

  /// One data directory has one `dev`: the second says whose it is and how to stop it.
  private func secondDevelopment(of development: Development) async throws {
    let second = try await Program.run(["dev", "--data", development.directory])
    #expect(second.exitCode != 0)
    #expect(second.errors.contains("\(development.program.processID)"), "\(second.errors)")
    let status = try await Program.run(["dev", "--data", development.directory, "--status"])
    #expect(status.exitCode == 0 && status.output.contains("\(development.program.processID)"))
    #expect(!status.output.contains("POSTRIDER_TOKEN="))
    let reset = try await Program.run(["dev", "--data", development.directory, "--reset", "--yes"])
    #expect(reset.exitCode != 0 && FileManager.default.fileExists(atPath: "\(development.directory)/keys"))
  }

  private func shell(_ program: String, _ arguments: [String]) async throws -> String {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    process.arguments = [program] + arguments
    let pipe = Pipe()
    process.standardOutput = pipe
    try process.run()
    let data = try pipe.fileHandleForReading.readToEnd() ?? Data()
    process.waitUntilExit()
    return String(decoding: data, as: UTF8.self)
  }
}
