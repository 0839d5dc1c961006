import Foundation
import PostriderTesting
import Testing

/// How processes start, stop, and say what is wrong.
@Suite("Processes")
struct LifeTests {
  @Test("a killed dev takes its servers along, and the next one finds its data")
  func killed() async throws {
    let first = try await Development.start([], until: "Running. Ctrl-C ends it.")
    #expect(!first.processes().isEmpty)
    #expect(try await first.cli("whoami").exitCode == 0)
    first.program.signal(SIGKILL)
    #expect(await first.program.exit() == 128 + Int(SIGKILL))
    #expect(await eventually { first.processes().isEmpty }, "left behind: \(first.processes())")

    let second = try await Development.start([], in: first.directory, until: "Running. Ctrl-C ends it.")
    #expect(try await second.cli("mailbox", "list").exitCode == 0)
    let stop = try await Program.run(["dev", "--data", second.directory, "--stop"])
    #expect(stop.exitCode == 0, "\(stop.errors)")
    #expect(await second.program.exit() == 0, "\(second.program.errors)")
    #expect(await eventually { second.processes().isEmpty })

    let reset = try await Program.run(["dev", "--data", second.directory, "--reset", "--yes"])
    #expect(reset.exitCode == 0 && !FileManager.default.fileExists(atPath: second.directory))
  }

  @Test("every wrong key is reported at once, with exit code 78", arguments: ["worker", "scheduler", "api"])
  func configuration(role: String) async throws {
    let result = try await Program.run(
      [role],
      environment: [
        "POSTRIDER_DATABASE_URL": "mysql://secret-canary@host/db", "POSTRIDER_WORKER_SESSIONS": "0",
        "POSTRIDER_LOG_LEVEL": "loud", "POSTRIDER_NO_SUCH_KEY": "1",
      ])
    #expect(result.exitCode == 78)
    for name in ["DATABASE_URL", "WORKER_SESSIONS", "LOG_LEVEL", "NO_SUCH_KEY", "REDIS_URL"] {
      #expect(result.errors.contains("POSTRIDER_\(name)"), "\(result.errors)")
    }
    #expect(!result.errors.contains("secret-canary"))
  }

  @Test("a worker without PostgreSQL and Redis waits, says so, and stops on SIGTERM")
  func waiting() async throws {
    let keys = try await Program.run(["keys", "generate"])
    let worker = try RunningProgram(
      ["worker"],
      environment: [
        "POSTRIDER_DATABASE_URL": "postgresql:///none?host=/nonexistent", "POSTRIDER_KEYS_RING": keys.output,
        "POSTRIDER_REDIS_URL": "unix:///nonexistent/redis.sock", "POSTRIDER_PROBE_PORT": "0",
      ])
    #expect(await eventually { worker.errors.contains("Claiming waits") }, "\(worker.errors)")
    #expect(worker.isRunning)
    worker.signal(SIGTERM)
    #expect(await worker.exit() == 0, "\(worker.errors)")
    worker.forget()
  }

  @Test("an unreachable service is said with exit code 69")
  func unreachable() async throws {
    let migrate = try await Program.run(
      ["migrate"], environment: ["POSTRIDER_DATABASE_URL": "postgresql:///none?host=/nonexistent"])
    #expect(migrate.exitCode == 69 && migrate.errors.contains("PostgreSQL cannot be reached"), "\(migrate.errors)")
    let list = try await Program.run(["mailbox", "list"])
    #expect(list.exitCode == 69 && list.errors.contains("postrider dev"), "\(list.errors)")
    let join = try await Program.run(["worker", "--data", "/nonexistent"])
    #expect(join.exitCode == 69 && join.errors.contains("/nonexistent"), "\(join.errors)")
  }

  @Test("a key ring is made once and never replaced")
  func keys() async throws {
    let file = FileManager.default.temporaryDirectory.appending(path: "ring-\(UUID().uuidString)").path
    defer { try? FileManager.default.removeItem(atPath: file) }
    #expect(try await Program.run(["keys", "generate", "--file", file]).exitCode == 0)
    let made = FileManager.default.contents(atPath: file)
    let mode = try FileManager.default.attributesOfItem(atPath: file)[.posixPermissions] as? Int
    #expect(mode == 0o600)
    #expect(try await Program.run(["keys", "generate", "--file", file]).exitCode != 0)
    #expect(try await Program.run(["keys", "generate", "--file", file, "--if-missing"]).exitCode == 0)
    #expect(FileManager.default.contents(atPath: file) == made)
  }
}
