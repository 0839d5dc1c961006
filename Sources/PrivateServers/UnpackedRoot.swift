import FoundationEssentials

#if canImport(Darwin)
  import Darwin
#elseif canImport(Musl)
  import Musl
#else
  import Glibc
#endif

/// A root directory for a mail server whose Debian package cannot be installed beside Postfix: the unpacked package, the
/// libraries that its programs load, and users of its own.
///
/// `chroot` gives the server paths and users that it was built for, whatever the machine has; it needs root. The package
/// was unpacked before (`ops/test` does it); its libraries are the machine's.
struct UnpackedRoot: Sendable {
  /// The directory.
  let path: String
  /// The user that mail is delivered as, and that the data directory's other servers run as.
  let user: ServerUser
  /// Runs a program inside.
  let chroot: String

  /// The name of ``user`` inside.
  static let mailUser = "mail"

  /// A user that only the inside knows.
  struct User: Sendable {
    var name: String
    var id: UInt32
    var home = "/"
  }

  /// Makes it anew; mail and queue of an earlier run stay.
  ///
  /// - Parameters:
  ///   - package: The package's name, the folder's in ``packages``.
  ///   - programs: Paths inside, for their libraries.
  ///   - users: Those beside root and the mail's user.
  static func make(
    in data: DataDirectory, name: String, package: String, programs: [String], users: [User]
  ) async throws -> UnpackedRoot {
    guard geteuid() == 0 else {
      throw PrivateServerError.needsRoot(
        server: package, reason: "it changes its root directory, and between users by itself")
    }
    guard let unpacked = packages.map({ "\($0)/\(package)" }), Files.exists(unpacked) else {
      throw PrivateServerError.missingProgram(
        name: package, looked: [packages ?? "no folder mail-servers above this program, and POSTRIDER_MAIL_SERVERS"],
        install: "ops/test, which unpacks it (Debian)")
    }
    let root = UnpackedRoot(
      path: data.path + "/" + name, user: data.user, chroot: try Programs.find("chroot", package: "coreutils"))
    for folder in ["", "/etc", "/dev", "/run", "/tmp", "/var"] {
      try Files.ensureDirectory(root.path + folder, mode: folder == "/tmp" ? 0o1777 : 0o755)
    }
    try await Command.run(try Programs.find("cp", package: "coreutils"), ["-a", "\(unpacked)/.", root.path])
    try await root.addLibraries(of: ["/bin/sh"] + programs.map { root.path + $0 })
    if !Files.exists(root.path + "/var/run") { symlink("../run", root.path + "/var/run") }
    // No device: that would need more rights, and nothing reads from it.
    try Files.write("", to: root.path + "/dev/null", mode: 0o666)
    try root.addUsers(users)
    try Files.ensureDirectory(root.path + "/mail", mode: 0o755, owner: data.user)
    return root
  }

  /// Where packages are unpacked: `POSTRIDER_MAIL_SERVERS`, or the folder `mail-servers` beside the build.
  static var packages: String? {
    if let named = ProcessInfo.processInfo.environment["POSTRIDER_MAIL_SERVERS"] { return named }
    var folder = Files.resolved("/proc/self/exe")
    while folder != "/" {
      folder = Files.parent(of: folder)
      if Files.exists(folder + "/mail-servers") { return folder + "/mail-servers" }
    }
    return nil
  }

  /// Copies what programs load, and the shell that runs delivery agents, to the same places inside.
  private func addLibraries(of programs: [String]) async throws {
    let ldd = try Programs.find("ldd", package: "libc-bin")
    var files: Set<String> = ["/bin/sh"]
    for program in programs {
      let lines = try await Command.run(ldd, [program]).split(separator: "\n")
      if let missing = lines.first(where: { $0.contains("not found") }) {
        throw PrivateServerError.unusable(path: program, reason: "a library is missing: \(missing)")
      }
      for line in lines {
        if let file = line.split(whereSeparator: { $0 == " " || $0 == "\t" }).first(where: { $0.hasPrefix("/") }) {
          files.insert(String(file))
        }
      }
    }
    let copy = try Programs.find("cp", package: "coreutils")
    for file in files {
      try Files.ensureDirectory(Files.parent(of: path + file), mode: 0o755)
      try await Command.run(copy, ["-L", file, path + file])
    }
  }

  private func addUsers(_ users: [User]) throws {
    let all = [User(name: "root", id: 0), User(name: "nobody", id: 65_534), User(name: Self.mailUser, id: user.userID)]
    try Files.write(
      (all + users).map { "\($0.name):x:\($0.id):\($0.id)::\($0.home):/bin/sh\n" }.joined(),
      to: path + "/etc/passwd", mode: 0o644)
    try Files.write(
      (all + users).map { "\($0.name):x:\($0.id):\n" }.joined(), to: path + "/etc/group", mode: 0o644)
  }

  /// What of a mailbox was delivered: the octets of each file of its Maildir, oldest first.
  func messages(of address: String) -> [[UInt8]] {
    let parts = address.lowercased().split(separator: "@")
    guard parts.count == 2 else { return [] }
    let folder = "\(path)/mail/\(parts[1])/\(parts[0])/Maildir/new"
    return Files.names(in: folder).sorted().compactMap { name in
      FileManager.default.contents(atPath: "\(folder)/\(name)").map { Array($0) }
    }
  }
}

/// Checks that an account's name can stand in configuration files.
enum AccountName {
  /// Throws ``PrivateServerError/invalid(_:)`` for anything but letters, digits and `. _ + = -` around one `@`.
  static func check(_ address: String) throws {
    let parts = address.split(separator: "@", omittingEmptySubsequences: false)
    guard parts.count == 2,
      parts.allSatisfy({ part in
        !part.isEmpty && part.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._+=-".contains($0)) }
      })
    else { throw PrivateServerError.invalid("\"\(address)\" cannot be an account here") }
  }
}
