import FoundationEssentials

/// Where the servers' programs are.
enum Programs {
  /// Folders of PATH, then those where system programs are though PATH of a plain user lacks them.
  static var path: [String] {
    let named = ProcessInfo.processInfo.environment["PATH"]?.split(separator: ":").map(String.init) ?? []
    let usual = [
      "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/opt/homebrew/bin",
      "/opt/homebrew/sbin",
    ]
    return named + usual.filter { !named.contains($0) }
  }

  /// Finds a program: the folder or file named in an environment variable, then ``path``.
  static func find(_ name: String, variable: String? = nil, package: String) throws -> String {
    if let variable, let value = ProcessInfo.processInfo.environment[variable], !value.isEmpty {
      for file in [value, value + "/" + name] where Files.isProgram(file) { return file }
      throw PrivateServerError.missingProgram(name: name, looked: ["\(variable)=\(value)"], install: install(package))
    }
    if let folder = path.first(where: { Files.isProgram($0 + "/" + name) }) { return folder + "/" + name }
    throw PrivateServerError.missingProgram(name: name, looked: path, install: install(package))
  }

  /// The folders that may hold PostgreSQL's programs, best first: those of PATH, then the newest version.
  static func postgresFolders() -> [String] {
    // PATH may hold a link to `postgres` without its sisters, so the folder is the one that the link leads to.
    let linked = path.filter { Files.isProgram($0 + "/postgres") }.map {
      Files.parent(of: Files.resolved($0 + "/postgres"))
    }
    let versions = versioned("/usr/lib/postgresql", "") + versioned("/usr", "pgsql-")
    let brew = versioned("/opt/homebrew/opt", "postgresql@") + versioned("/usr/local/opt", "postgresql@")
    var seen: Set<String> = []
    return (linked + versions + brew).filter { Files.isProgram($0 + "/postgres") && seen.insert($0).inserted }
  }

  private static func versioned(_ folder: String, _ prefix: String) -> [String] {
    let numbers = Files.names(in: folder).filter { $0.hasPrefix(prefix) }.compactMap { Int($0.dropFirst(prefix.count)) }
    return numbers.sorted(by: >).map { "\(folder)/\(prefix)\($0)/bin" }
  }

  /// The line that installs a package here. Packages are named as in Debian.
  static func install(_ package: String) -> String {
    let words: (String, [String: String]) =
      if Files.exists("/usr/bin/apt-get") {
        ("apt-get install", [:])
      } else if Files.exists("/usr/bin/dnf") {
        ("dnf install", ["postgresql": "postgresql-server", "redis-server": "redis", "dovecot-pop3d": "dovecot"])
      } else if Files.exists("/sbin/apk") {
        ("apk add", ["redis-server": "redis", "dovecot-pop3d": "dovecot-pop3d"])
      } else {
        (
          "brew install",
          ["postgresql": "postgresql@17", "redis-server": "redis", "dovecot-pop3d": "dovecot"]
        )
      }
    return "\(words.0) \(words.1[package] ?? package)"
  }
}
