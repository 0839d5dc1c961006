import PostriderTesting
import Testing

@testable import PrivateServers

@Suite("Private PostgreSQL")
struct PostgresTests {
  @Test("starts, answers, keeps its data over stop, kill and restart")
  func keepsData() async throws {
    let postgres = try await TestServers.shared.dedicatedPostgres()
    try await postgres.createDatabase("it's \"odd\"/name")
    let database = "it's \"odd\"/name"
    try await postgres.execute("CREATE TABLE t (n int); INSERT INTO t VALUES (7)", database: database)
    let first = await postgres.processID
    try await postgres.restart()
    #expect(try await postgres.execute("SELECT n FROM t", database: database) == "7")
    #expect(await postgres.processID != first)
    await postgres.kill9()
    #expect(await postgres.processID == nil)
    #expect(ProcessTable.processes(workingIn: postgres.dataPath).isEmpty)
    try await postgres.start()
    #expect(try await postgres.execute("SELECT n FROM t", database: database) == "7")
    await postgres.stop()
    #expect(ProcessTable.processes(workingIn: postgres.dataPath).isEmpty)
  }

  @Test("takes no TCP connections")
  func noTCP() async throws {
    let postgres = try await TestServers.shared.postgres()
    #expect(try await postgres.execute("SHOW listen_addresses") == "")
    #expect(try await postgres.execute("SHOW server_encoding") == "UTF8")
  }

  @Test("a stale lock file, whose process id belongs to another program now, is no obstacle")
  func staleLock() async throws {
    let data = try await TestServers.shared.dedicatedDirectory()
    var options = PrivatePostgres.Options()
    options.isDurable = false
    let postgres = try await PrivatePostgres.start(in: data, options: options)
    await postgres.stop()
    // A program of the same user, which alone makes PostgreSQL refuse.
    let redis = try await PrivateRedis.start(in: data)
    let other = try #require(await redis.processID)
    try Files.write("\(other)\n\(postgres.dataPath)\n", to: postgres.dataPath + "/postmaster.pid", owner: data.user)
    try await postgres.start()
    #expect(try await postgres.execute("SELECT 1") == "1")
    await postgres.stop()
    await redis.stop()
  }

  @Test("data of another major version are refused and left as they are")
  func otherVersion() async throws {
    let data = try await TestServers.shared.dedicatedDirectory()
    let folder = try data.directory(for: "postgres")
    try Files.write("9\n", to: folder + "/PG_VERSION")
    let error = await #expect(throws: PrivateServerError.self) { _ = try await PrivatePostgres.start(in: data) }
    guard case .versionMismatch(_, "9", _, _) = error else {
      Issue.record("unexpected: \(String(describing: error))")
      return
    }
    #expect(Files.names(in: folder) == ["PG_VERSION"])
  }

  @Test("a server that cannot start says why, with its log lines")
  func refusedSetting() async throws {
    let data = try await TestServers.shared.dedicatedDirectory()
    var options = PrivatePostgres.Options()
    options.isDurable = false
    options.settings = ["shared_buffers": "nonsense"]
    let error = await #expect(throws: PrivateServerError.self) {
      _ = try await PrivatePostgres.start(in: data, options: options)
    }
    #expect(error?.description.contains("shared_buffers") == true)
  }

  @Test("paused it does not answer, resumed it does")
  func pause() async throws {
    let postgres = try await TestServers.shared.dedicatedPostgres()
    await postgres.pause()
    async let answer = postgres.execute("SELECT 1")
    let pid = try #require(await postgres.processID)
    #expect(await eventually { Files.read("/proc/\(pid)/stat")?.contains(") T ") == true })
    await postgres.resume()
    #expect(try await answer == "1")
    // A paused server can be stopped all the same.
    await postgres.pause()
    await postgres.stop()
    #expect(ProcessTable.processes(workingIn: postgres.dataPath).isEmpty)
  }

  @Test("fresh databases are copies of a template that is filled once")
  func templates() async throws {
    let urls = try await withThrowingTaskGroup(of: String.self) { group in
      for _ in 0..<4 {
        group.addTask {
          try await TestServers.shared.freshDatabase(template: "probe") { url in
            // A second filling would fail on the existing table.
            let postgres = try await TestServers.shared.postgres()
            #expect(url == postgres.url(database: "template-probe"))
            try await postgres.execute("CREATE TABLE filled (n int)", database: "template-probe")
          }
        }
      }
      return try await group.reduce(into: Set<String>()) { $0.insert($1) }
    }
    #expect(urls.count == 4)
    let postgres = try await TestServers.shared.postgres()
    for url in urls {
      let name = try #require(url.dropFirst("postgresql:///".count).split(separator: "?").first)
      #expect(try await postgres.execute("SELECT count(*) FROM filled", database: String(name)) == "0")
      try await TestServers.shared.drop(databaseURL: url)
    }
  }
}
