/// Where a ``PrivatePostfix`` keeps its files and finds its programs.
struct PostfixLayout: Sendable {
  /// Its folder below the data directory, owned by root.
  let folder: String
  /// The same through the runtime directory, without blanks: Postfix's lists are separated by them.
  let configuration: String
  let queue: String
  let state: String
  let logPath: String
  /// The folder of `master` and the other daemons.
  let daemons: String
  /// The folder of `postmap` and the other commands.
  let commands: String
  /// A map type whose changes a running Postfix notices by itself.
  let mapType: String
  /// Tells this server's greeting from that of another one that took the port first.
  let greetingMark: String

  /// Finds the programs and creates the folders.
  static func make(in data: DataDirectory, options: PrivatePostfix.Options) async throws -> PostfixLayout {
    let postconf = try Programs.find("postconf", variable: "POSTRIDER_POSTFIX_BIN", package: "postfix")
    guard let owner = ServerUser.named("postfix") else {
      throw PrivateServerError.unusable(path: "/etc/passwd", reason: "there is no user postfix; install Postfix")
    }
    let folder = data.path + "/" + options.name
    for name in ["", "/etc", "/queue"] { try Files.ensureDirectory(folder + name, mode: 0o755) }
    try Files.ensureDirectory(folder + "/state", mode: 0o700, owner: owner)
    let alias = "\(data.alias)/\(options.name)"
    // An empty configuration: the system's own one may be broken or absent, and is not asked.
    for name in ["main.cf", "master.cf"] where !Files.exists("\(folder)/etc/\(name)") {
      try Files.write("", to: "\(folder)/etc/\(name)", mode: 0o644)
    }
    let defaults = try await Command.run(
      postconf, ["-c", alias + "/etc", "-d", "-h", "daemon_directory", "command_directory"])
    let types = try await Command.run(postconf, ["-c", alias + "/etc", "-m"]).split(separator: "\n")
    guard let mapType = ["hash", "lmdb", "cdb"].first(where: { types.contains(Substring($0)) }) else {
      throw PrivateServerError.unusable(path: postconf, reason: "this Postfix has no map type hash, lmdb or cdb")
    }
    let folders = defaults.split(separator: "\n").map(String.init)
    guard folders.count == 2 else {
      throw PrivateServerError.command(name: "postconf", reason: "unexpected answer", output: defaults)
    }
    return PostfixLayout(
      folder: folder, configuration: alias + "/etc", queue: alias + "/queue", state: alias + "/state",
      logPath: data.logPath(options.name), daemons: folders[0], commands: folders[1], mapType: mapType,
      greetingMark: "\(data.runtimePath.split(separator: "-").last ?? "")-\(options.name)")
  }

  /// Lets Postfix create the folders of its queue with the owners and modes it wants.
  func createQueue() async throws {
    if Files.exists(folder + "/queue/maildrop") { return }
    try await Command.run(commands + "/postfix", ["-c", configuration, "check"])
  }
}
