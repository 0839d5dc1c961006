import FoundationEssentials
import Subprocess

#if canImport(Darwin)
  import Darwin
#elseif canImport(Musl)
  import Musl
#else
  import Glibc
#endif

/// A PostgreSQL data folder: created, checked and served.
struct PostgresCluster: Sendable {
  let data: DataDirectory
  let options: PrivatePostgres.Options
  let dataPath: String
  let socketDirectory: String
  let programs: String

  /// The folder of programs that fits the data: their own major version, else the best that is installed.
  static func programs(for dataPath: String, folder: String?) async throws -> String {
    let named =
      folder ?? ProcessInfo.processInfo.environment["POSTRIDER_POSTGRES_BIN"].flatMap { $0.isEmpty ? nil : $0 }
    let folders = named.map { [$0] } ?? Programs.postgresFolders()
    guard let best = folders.first, Files.isProgram(best + "/postgres"), Files.isProgram(best + "/initdb") else {
      throw PrivateServerError.missingProgram(
        name: "PostgreSQL (initdb, postgres)",
        looked: named.map { [$0] } ?? Programs.path + ["/usr/lib/postgresql/*/bin"],
        install: Programs.install("postgresql"))
    }
    guard let written = Files.read(dataPath + "/PG_VERSION")?.split(separator: "\n").first else { return best }
    var found: [String] = []
    for folder in folders {
      let version = try await Command.run(folder + "/postgres", ["--version"])
      guard let number = version.split(separator: " ").first(where: { $0.first?.isNumber == true }) else { continue }
      let major = number.prefix { $0.isNumber }
      if major == written { return folder }
      found.append(String(major))
    }
    throw PrivateServerError.versionMismatch(
      server: "PostgreSQL", data: String(written), program: found.joined(separator: ", "),
      hint:
        "Install version \(written), or move the data with pg_upgrade or pg_dump; nothing was changed in \(dataPath).")
  }

  /// Creates the data when there are none.
  ///
  /// They are built beside their place and moved there at the end, so that an interrupted creation leaves nothing that
  /// looks like data.
  func create() async throws {
    if Files.exists(dataPath + "/PG_VERSION") { return }
    let new = dataPath + ".new"
    Files.remove(new)
    try Files.ensureDirectory(new, mode: 0o700, owner: data.user)
    #if os(Linux)
      let locale = "C.UTF-8"
    #else
      let locale = "C"
    #endif
    do {
      try await Command.run(
        programs + "/initdb",
        ["-D", new, "-E", "UTF8", "--locale", locale, "-U", options.user, "--auth", "trust", "--no-instructions"]
          + (options.isDurable ? [] : ["--no-sync"]),
        user: data.user, timeout: .seconds(300))
    } catch {
      Files.remove(new)
      throw error
    }
    // An empty folder may stand there; anything else is not ours to remove.
    rmdir(dataPath)
    guard rename(new, dataPath) == 0 else {
      throw PrivateServerError.unusable(path: dataPath, reason: "cannot receive the new data: \(Files.lastError)")
    }
  }

  /// Starts the server and waits until it takes connections.
  func launch() async throws -> ChildProcess {
    try removeStaleLock()
    let deadline = ContinuousClock.now + .seconds(10)
    while true {
      do {
        return try await launchOnce()
      } catch PrivateServerError.notStarted(let server, let reason, let log) {
        // A backend outlived a killed server; it leaves once it notices, or is made to.
        guard log.contains(where: { $0.contains("pre-existing shared memory block") }) else {
          throw PrivateServerError.notStarted(server: server, reason: reason, log: log)
        }
        let survivors = ProcessTable.processes(workingIn: dataPath)
        guard ContinuousClock.now < deadline else {
          throw PrivateServerError.notStarted(
            server: server, reason: "processes of an earlier run still use the data: \(survivors)", log: log)
        }
        for survivor in survivors { kill(survivor, SIGQUIT) }
        try await Task.sleep(for: .milliseconds(100))
      }
    }
  }

  private func launchOnce() async throws -> ChildProcess {
    let logPath = data.logPath(options.name)
    let offset = Files.status(logPath)?.size ?? 0
    let child = try await ChildProcess.start(
      ChildProcess.Launch(
        name: options.name, program: programs + "/postgres", arguments: arguments, user: data.user,
        stopSignal: .interrupt, workingDirectory: dataPath),
      in: data)
    try await ManagedServer.waitUntilReady(
      child, within: options.startTimeout, logPath: logPath, logOffset: offset
    ) {
      // The first line tells whether the file is this server's, the eighth its state.
      let lines = Files.read(dataPath + "/postmaster.pid")?.split(separator: "\n", omittingEmptySubsequences: false)
      guard let lines, lines.count >= 8, lines[0] == "\(child.processID)" else { return false }
      return lines[7].hasPrefix("ready")
    }
    return child
  }

  private var arguments: [String] {
    var settings = [
      "listen_addresses": "", "unix_socket_directories": socketDirectory, "unix_socket_permissions": "0700",
      "max_connections": String(options.maximumConnections), "logging_collector": "off", "log_destination": "stderr",
      "log_line_prefix": "%m [%p] ",
    ]
    if !options.isDurable {
      settings.merge(["fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"]) { $1 }
    }
    settings.merge(options.settings) { $1 }
    return ["-D", dataPath] + settings.sorted { $0.key < $1.key }.flatMap { ["-c", "\($0.key)=\($0.value)"] }
  }

  /// Removes the lock file of a killed server whose process id now belongs to another program of the same user.
  ///
  /// PostgreSQL removes it by itself when the id is free, and refuses otherwise: in a container ids repeat. A running
  /// server's working directory is its data folder; nobody else starts one here, as the data directory is locked.
  private func removeStaleLock() throws {
    let file = dataPath + "/postmaster.pid"
    guard let first = Files.read(file)?.split(separator: "\n").first, let pid = Int32(first) else { return }
    guard Files.exists("/proc/self/cwd"), ProcessTable.isRunning(pid) else { return }
    let owners = ProcessTable.processes(workingIn: dataPath)
    guard owners.isEmpty else {
      if owners.contains(pid) {
        throw PrivateServerError.notStarted(
          server: options.name, reason: "process \(pid) serves these data already; stop it with: kill -INT \(pid)",
          log: [])
      }
      return
    }
    Files.remove(file)
  }
}
