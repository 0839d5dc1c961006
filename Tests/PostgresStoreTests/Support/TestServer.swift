import Foundation
import Logging
import PostriderCore
import Synchronization

@testable import PostgresStore

/// A private PostgreSQL on a Unix socket. A shell stands between: it stops the server and removes its folder as soon as
/// its standard input ends, which happens when the test process ends, however that comes about.
final class TestServer: Sendable {
  let folder: String
  private let shell: Mutex<Pipe?>
  private let process: Mutex<Process?>

  /// The server of this test process, with a migrated template.
  static let shared = Task<TestServer, any Error> {
    let server = try await TestServer()
    try await server.prepareTemplate()
    return server
  }

  init() async throws {
    // Short, because a socket's path has at most 107 octets; readable by the server's user.
    folder = "/tmp/prs-\(UInt32.random(in: 0...UInt32.max))"
    shell = Mutex(nil)
    process = Mutex(nil)
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
    if getuid() == 0, let user = getpwnam("postgres") {
      chown(folder, user.pointee.pw_uid, user.pointee.pw_gid)
    }
    try await start(
      """
      initdb -D \(folder)/data -U postgres -A trust -E UTF8 --no-locale --no-sync >\(folder)/initdb.log 2>&1 || exit 1
      """)
  }

  /// Starts the server (again); returns when it answers.
  func start(_ before: String = ":") async throws {
    let script = """
      \(before)
      pg_ctl -D \(folder)/data -l \(folder)/server.log -w -t 120 -o "-k \(folder) -c listen_addresses='' -c fsync=off \
        -c max_connections=1000 -c log_min_messages=panic" start || exit 1
      read _
      pg_ctl -D \(folder)/data -m fast -w stop
      [ -e \(folder)/keep ] || rm -rf \(folder)
      """
    let pipe = Pipe()
    // A child that holds the writing end itself would never see the end of its input.
    _ = fcntl(pipe.fileHandleForWriting.fileDescriptor, F_SETFD, FD_CLOEXEC)
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/bin/sh")
    process.arguments = ["-c", script]
    if getuid() == 0 {
      // PostgreSQL refuses to run as root.
      process.executableURL = URL(fileURLWithPath: "/usr/bin/setpriv")
      process.arguments =
        ["--reuid=postgres", "--regid=postgres", "--clear-groups", "/bin/sh"] + (process.arguments ?? [])
    }
    var environment = ProcessInfo.processInfo.environment
    environment["PATH"] = "/usr/lib/postgresql/15/bin:" + (environment["PATH"] ?? "/usr/bin:/bin")
    process.environment = environment
    process.currentDirectoryURL = URL(fileURLWithPath: "/")
    process.standardInput = pipe
    // Whoever waits for the end of the test's output must not wait for the shell.
    process.standardOutput = FileHandle.nullDevice
    process.standardError = FileHandle.nullDevice
    try process.run()
    shell.withLock { $0 = pipe }
    self.process.withLock { $0 = process }
    let probe = PostgresConnection(url: ConnectionURL(url("postgres", "postgres")), options: .test)
    try await eventually("the server answers", within: .seconds(120)) {
      do {
        return try await probe.run { db in try db.query("SELECT 1").count == 1 }
      } catch { return false }
    }
    await probe.close()
  }

  /// Stops the server at once; its folder stays when `keepsData`.
  func stop(keepsData: Bool = false) async throws {
    if keepsData { _ = FileManager.default.createFile(atPath: "\(folder)/keep", contents: nil) }
    try shell.withLock { pipe in
      try pipe?.fileHandleForWriting.close()
      pipe = nil
    }
    try await eventually("the server stopped") { [self] in !process.withLock { $0?.isRunning ?? false } }
    if keepsData { try FileManager.default.removeItem(atPath: "\(folder)/keep") }
  }

  /// A libpq URI of a database.
  func url(_ user: String, _ database: String) -> String { "postgresql://\(user)@/\(database)?host=\(folder)" }

  /// Runs statements as the server's administrator.
  @discardableResult
  func sql(_ database: String, _ sql: String, _ parameters: [PostgresValue] = []) async throws -> ResultSet {
    let connection = PostgresConnection(url: ConnectionURL(url("postgres", database)), options: .test)
    // Closed before the next is opened: those who ask again and again would use up the server's connections.
    do {
      let result = try await connection.run { db in try db.query(sql, parameters) }
      await connection.close()
      return result
    } catch {
      await connection.close()
      throw error
    }
  }

  /// The migrating role may create roles and owns the databases; the application's role owns nothing.
  func prepareTemplate() async throws {
    try await sql("postgres", "CREATE ROLE pr_owner LOGIN CREATEROLE")
    try await sql("postgres", "CREATE ROLE pr_app LOGIN")
    try await sql("postgres", "CREATE DATABASE template_postrider OWNER pr_owner")
    try await Migrator(
      url: url("pr_owner", "template_postrider"), applicationURL: url("pr_app", "template_postrider"), logger: .test
    ).migrate()
  }
}

extension PostgresConnection.Options {
  static let test = Self(application: "test", connectTimeout: .seconds(20), statementTimeout: .seconds(60))
}

extension Logger {
  static let test = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
}

/// Waits until a condition holds; fails with its name when it does not in time.
func eventually(
  _ what: String, within limit: Duration = .seconds(60), _ condition: @Sendable () async throws -> Bool
) async throws {
  let deadline = ContinuousClock.now + limit
  while ContinuousClock.now < deadline {
    if try await condition() { return }
    try await Task.sleep(for: .milliseconds(20))
  }
  throw TimedOut(what: what)
}

struct TimedOut: Error, CustomStringConvertible {
  var what: String
  var description: String { "timed out before: \(what)" }
}
