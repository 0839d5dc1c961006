import FoundationEssentials
import PostriderTesting
import Subprocess
import Testing

@testable import PrivateServers

#if canImport(Darwin)
  import Darwin
#elseif canImport(Musl)
  import Musl
#else
  import Glibc
#endif

@Suite("Data directory")
struct DataDirectoryTests {
  @Test("one holder at a time; the second is told whom to stop")
  func lock() async throws {
    let path = try await TestServers.shared.dedicatedDirectory().path + "/inner"
    let first = try await DataDirectory.open(path)
    #expect(DataDirectory.holder(of: path) == .process(getpid()))
    let error = await #expect(throws: PrivateServerError.self) { _ = try await DataDirectory.open(path) }
    #expect(error == .locked(directory: path, holder: getpid()))
    #expect(error?.description.contains("kill \(getpid())") == true)
    first.close()
    #expect(DataDirectory.holder(of: path) == .none)
    #expect(!Files.exists(first.runtimePath))
    let second = try await DataDirectory.open(path)
    #expect(second.runtimePath == first.runtimePath)
    second.close()
  }

  @Test("a directory is removed while it is held, with the one for sockets")
  func remove() async throws {
    let path = try await TestServers.shared.dedicatedDirectory().path + "/removed"
    let data = try await DataDirectory.open(path)
    try Files.write("x", to: path + "/file")
    try data.remove()
    #expect(!Files.exists(path))
    #expect(!Files.exists(data.runtimePath))
    let second = try await DataDirectory.open(path)
    data.close()
    #expect(DataDirectory.holder(of: path) == .process(getpid()))
    #expect(Files.exists(second.runtimePath))
    second.close()
  }

  @Test("an abandoned directory is removed with those inside it, a held one is not")
  func abandoned() async throws {
    let path = try await TestServers.shared.dedicatedDirectory().path + "/abandoned"
    let outer = try await DataDirectory.open(path)
    let inner = try await DataDirectory.open(path + "/a/b")
    let redis = try await PrivateRedis.start(in: inner)
    let pid = try #require(await redis.processID)
    await DataDirectory.removeAbandoned(path)
    #expect(Files.exists(inner.path))
    inner.close()
    outer.close()
    await DataDirectory.removeAbandoned(path)
    #expect(!Files.exists(path))
    #expect(!ProcessTable.isRunning(pid))
    #expect(!Files.exists(inner.runtimePath))
    await redis.stop()
  }

  @Test("a long path with blanks, quotes and percent signs holds every server")
  func longPath() async throws {
    let outer = try await TestServers.shared.dedicatedDirectory()
    let name = "it's \"50 %\" # \(String(repeating: "long ", count: 30))"
    let data = try await DataDirectory.open("\(outer.path)/\(name)")
    #expect(data.runtimePath.utf8.count < 60)
    var options = PrivatePostgres.Options()
    options.isDurable = false
    let postgres = try await PrivatePostgres.start(in: data, options: options)
    #expect(try await postgres.execute("SELECT 1") == "1")
    let redis = try await PrivateRedis.start(in: data)
    #expect(redis.ask("PING") == "+PONG")
    await postgres.stop()
    await redis.stop()
    if geteuid() == 0 {
      let sandbox = try await MailSandbox.start(in: data)
      try await sandbox.addAccount("a@sandbox.test", password: "secret")
      let said = try await Dialogue.submit(
        port: sandbox.submissionsPort ?? 0, startTLS: nil, authority: sandbox.authority, user: "a@sandbox.test",
        password: "secret", to: "a@sandbox.test", message: "Subject: here\r\n\r\nbody")
      #expect(said.contains { $0.hasPrefix("250 2.0.0 Ok: queued") })
      #expect(try await eventually { try sandbox.dovecot.messageFiles(of: "a@sandbox.test").count == 1 })
      await sandbox.stop()
    }
    data.close()
    #expect(Files.exists(data.path + "/postgres/PG_VERSION"))
  }

  @Test("a directory that the servers' user cannot enter is refused with the way out")
  func closedParent() async throws {
    let outer = try await TestServers.shared.dedicatedDirectory()
    guard outer.user.isOther else { return }
    let closed = outer.path + "/closed"
    try Files.ensureDirectory(closed, mode: 0o700)
    let error = await #expect(throws: PrivateServerError.self) { _ = try await DataDirectory.open(closed + "/data") }
    #expect(error?.description.contains("chmod o+x \(closed)") == true)
    #expect(error?.description.contains(outer.user.name) == true)
  }

  @Test("children have a session of their own and a clean environment")
  func session() async throws {
    let redis = try await TestServers.shared.redis()
    let pid = try #require(await redis.processID)
    #expect(ProcessTable.members(ofSession: pid).contains(pid))
    setenv("PGHOST", "elsewhere.invalid", 1)
    let postgres = try await TestServers.shared.postgres()
    #expect(try await postgres.execute("SELECT 1") == "1")
    unsetenv("PGHOST")
    #expect(try await Command.run("/usr/bin/env", []).contains("PGHOST") == false)
  }
}

@Suite("Supervisor", .enabled(if: Files.exists("/proc/self/exe"), "needs /proc"))
struct SupervisorTests {
  /// The part of the supervisor that is killed: run by ``killed()`` in a process of its own.
  @Test(.enabled(if: supervisedPath != nil, "is started by another test"))
  func supervisedHelper() async throws {
    let data = try await DataDirectory.open(try #require(supervisedPath))
    var options = PrivatePostgres.Options()
    options.isDurable = false
    let postgres = try await PrivatePostgres.start(in: data, options: options)
    let redis = try await PrivateRedis.start(in: data)
    let sandbox = geteuid() == 0 ? try await MailSandbox.start(in: data) : nil
    let processes = [
      await postgres.processID, await redis.processID, await sandbox?.dovecot.processID,
      await sandbox?.postfix?.processID,
    ].compactMap(\.self)
    try Files.write(processes.map(String.init).joined(separator: " "), to: data.path + "/ready")
    try await Task.sleep(for: .seconds(120))
  }

  @Test("kill -9 of the supervisor leaves no child, and the next one can start")
  func killed() async throws {
    let path = try await TestServers.shared.dedicatedDirectory().path + "/supervised"
    let supervisor = Configuration.child(
      [
        Files.resolved("/proc/self/exe"), "--testing-library", "swift-testing", "--filter", "supervisedHelper",
      ], user: nil, deathSignal: .kill,
      environment: ProcessInfo.processInfo.environment.merging(["POSTRIDER_SUPERVISED": path]) { $1 })
    let result = try await Subprocess.run(
      supervisor, input: .none, output: .string(limit: 1 << 20), error: .combinedWithOutput
    ) { execution in
      let isReady = await eventually { Files.exists(path + "/ready") }
      kill(execution.processIdentifier.value, SIGKILL)
      return isReady
    }
    #expect(result.closureResult, "\(result.standardOutput)")
    let processes = (Files.read(path + "/ready") ?? "").split(separator: " ").compactMap { Int32($0) }
    #expect(processes.count == (geteuid() == 0 ? 4 : 2))
    #expect(
      await eventually {
        processes.allSatisfy { ProcessTable.members(ofSession: $0).isEmpty }
          && ["postgres", "redis", "postfix/queue"].allSatisfy {
            ProcessTable.processes(workingIn: "\(path)/\($0)").isEmpty
          }
      })
    let data = try await DataDirectory.open(path)
    #expect(Files.names(in: data.recordsPath).isEmpty)
    var settings = PrivatePostgres.Options()
    settings.isDurable = false
    let postgres = try await PrivatePostgres.start(in: data, options: settings)
    #expect(try await postgres.execute("SELECT 1") == "1")
    await postgres.stop()
    data.close()
  }

  @Test("a child that outlived its supervisor is stopped at the next start, recognized by its start time")
  func leftovers() async throws {
    let path = try await TestServers.shared.dedicatedDirectory().path + "/left"
    let first = try await DataDirectory.open(path)
    let redis = try await PrivateRedis.start(in: first)
    let pid = try #require(await redis.processID)
    // As if the supervisor were gone: only the lock is given up.
    first.close()
    let record = try #require(Files.read("\(path)/children/redis"))
    try Files.write(record.replacing("\n", with: "0\n", maxReplacements: 2), to: path + "/children/other")
    let second = try await DataDirectory.open(path)
    #expect(!ProcessTable.isRunning(pid))
    #expect(Files.names(in: second.recordsPath).isEmpty)
    await redis.stop()
    second.close()
  }
}

private let supervisedPath = ProcessInfo.processInfo.environment["POSTRIDER_SUPERVISED"]
