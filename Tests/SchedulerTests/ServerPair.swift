import Foundation
import PostriderTesting
import PrivateServers

/// A PostgreSQL primary and its streaming standby.
struct ServerPair: Sendable {
  let primary: PrivatePostgres
  let standby: PrivatePostgres

  /// Starts a primary, copies it, and starts the copy as its standby.
  static func start() async throws -> ServerPair {
    let data = try await TestServers.shared.dedicatedDirectory(named: "pair")
    var options = PrivatePostgres.Options()
    options.isDurable = false
    options.settings = [
      "wal_level": "replica", "max_wal_senders": "4", "hot_standby": "on", "synchronous_commit": "on",
    ]
    options.name = "primary"
    let primary = try await PrivatePostgres.start(in: data, options: options)
    let copy = data.path + "/standby"
    try FileManager.default.createDirectory(
      atPath: copy, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o700])
    chown(copy, data.user.userID, data.user.groupID)
    try run(
      programs() + "/pg_basebackup",
      [
        "-h", primary.socketDirectory, "-U", options.user, "-D", copy, "-R", "-X", "stream", "--checkpoint=fast",
        "--no-sync",
      ],
      user: data.user)
    options.name = "standby"
    return ServerPair(primary: primary, standby: try await PrivatePostgres.start(in: data, options: options))
  }

  /// A URI that names both and wants the one that takes writes.
  func url(database: String) -> String {
    "postgresql:///\(database)?host=\(primary.socketDirectory),\(standby.socketDirectory)&user=postrider"
      + "&target_session_attrs=read-write"
  }

  /// Waits until the standby has everything that was committed.
  func waitForStandby() async throws {
    let position = try await primary.execute("SELECT pg_current_wal_lsn()")
    try await eventually("the standby has it all") {
      try await self.standby.execute("SELECT pg_last_wal_replay_lsn() >= '\(position)'") == "t"
    }
  }

  func stop() async {
    await primary.stop()
    await standby.stop()
  }

  private static func programs() throws -> String {
    let parent = "/usr/lib/postgresql"
    let versions = ((try? FileManager.default.contentsOfDirectory(atPath: parent)) ?? []).compactMap { Int($0) }
    let folders = versions.sorted(by: >).map { "\(parent)/\($0)/bin" } + ["/usr/local/bin", "/usr/bin"]
    let named = ProcessInfo.processInfo.environment["POSTRIDER_POSTGRES_BIN"].map { [$0] } ?? []
    for folder in named + folders
    where FileManager.default.isExecutableFile(atPath: folder + "/pg_basebackup")
      && FileManager.default.isExecutableFile(atPath: folder + "/postgres")
    { return folder }
    throw TestFailure("pg_basebackup is not installed")
  }

  private static func run(_ program: String, _ arguments: [String], user: ServerUser) throws {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: program)
    process.arguments = arguments
    if user.userID != geteuid() {
      process.executableURL = URL(fileURLWithPath: "/usr/bin/setpriv")
      process.arguments =
        ["--reuid=\(user.userID)", "--regid=\(user.groupID)", "--clear-groups", program] + arguments
    }
    process.environment = ["PATH": "/usr/bin:/bin", "HOME": "/", "LC_ALL": "C.UTF-8"]
    process.currentDirectoryURL = URL(fileURLWithPath: "/")
    process.standardOutput = FileHandle.nullDevice
    let errors = Pipe()
    process.standardError = errors
    try process.run()
    let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    guard process.terminationStatus == 0 else { throw TestFailure("pg_basebackup failed: \(text)") }
  }
}
