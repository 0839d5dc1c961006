import FoundationEssentials
import Synchronization

#if canImport(Darwin)
  import Darwin
#elseif canImport(Musl)
  import Musl
#else
  import Glibc
#endif

/// Users and their mail.
extension PrivateDovecot {
  /// Counts deliveries, so that file names are unique within a second.
  private static let deliveries = Atomic<Int>(0)

  /// The addresses that can log in, in order.
  public var addresses: [String] { Files.names(in: usersPath).filter { !$0.hasSuffix(".tmp") }.sorted() }

  /// Adds a user, or changes its password. A new user can log in at once; a changed password counts after a second,
  /// which is how often Dovecot looks.
  ///
  /// The address is `local@domain` of letters, digits and `. _ + = -`, kept in lower case; the password is any text.
  /// Throws ``PrivateServerError/invalid(_:)`` for another address.
  public func addUser(_ address: String, password: String) throws {
    let address = address.lowercased()
    let home = try homePath(of: address)
    try Files.ensureDirectory(Files.parent(of: home), mode: 0o700, owner: data.user)
    try Files.ensureDirectory(home, mode: 0o700, owner: data.user)
    if options.store == .maildir {
      for folder in ["", "/tmp", "/new", "/cur"] {
        try Files.ensureDirectory(home + "/Maildir" + folder, mode: 0o700, owner: data.user)
      }
    }
    // Encoded, so that a password may hold colons and control characters.
    let extra = options.kerberos.map { "::::::k5principals=\($0.trustedPrincipal)" } ?? ""
    let line = "\(address):{PLAIN.b64}\(Data(password.utf8).base64EncodedString())\(extra)\n"
    // Dovecot reads the file again when its time in seconds or its size differs: a comment makes it so.
    let last = Files.status("\(usersPath)/\(address)")?.size
    let text = last == line.utf8.count ? line + "#\n" : line
    try Files.write(text, to: "\(usersPath)/\(address)", owner: data.user)
  }

  /// Removes a user; its mail stays. Counts after a second.
  public func removeUser(_ address: String) throws {
    _ = try homePath(of: address)
    Files.remove("\(usersPath)/\(address.lowercased())")
  }

  /// Puts a message into a user's mailbox, as a delivery agent does: readers see all of it or nothing.
  ///
  /// The octets are stored as they are; lines may end in LF or CRLF.
  public func deliver(to address: String, message: [UInt8]) throws {
    let home = try homePath(of: address)
    guard Files.exists("\(usersPath)/\(address.lowercased())") else {
      throw PrivateServerError.invalid("there is no user \(address)")
    }
    switch options.store {
    case .maildir: try deliverToMaildir(home + "/Maildir", message)
    case .mbox: try deliverToFile(home + "/mbox", message)
    }
  }

  /// The files of a user's messages (Maildir), new ones and those seen by a client.
  public func messageFiles(of address: String) throws -> [String] {
    let maildir = try homePath(of: address) + "/Maildir"
    return ["new", "cur"].flatMap { folder in
      Files.names(in: "\(maildir)/\(folder)").sorted().map { "\(maildir)/\(folder)/\($0)" }
    }
  }

  /// The folder of a user's mail.
  func homePath(of address: String) throws -> String {
    let address = address.lowercased()
    let parts = address.split(separator: "@", omittingEmptySubsequences: false)
    func isPlain(_ text: Substring) -> Bool {
      guard let first = text.first, first != ".", first != "-" else { return false }
      return text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._+=-".contains($0)) }
    }
    guard parts.count == 2, address.utf8.count <= 200, isPlain(parts[0]), isPlain(parts[1]) else {
      throw PrivateServerError.invalid(
        "\"\(address)\" cannot be an account here: it takes local@domain of letters, digits and . _ + = -")
    }
    return "\(mailPath)/\(parts[1])/\(parts[0])"
  }

  private func deliverToMaildir(_ maildir: String, _ message: [UInt8]) throws {
    let number = Self.deliveries.add(1, ordering: .relaxed).newValue
    let name = "\(Int(Date().timeIntervalSince1970)).M\(number)P\(getpid()).postrider"
    let temporary = "\(maildir)/tmp/\(name)"
    let file = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
    guard file >= 0 else {
      throw PrivateServerError.unusable(path: maildir, reason: "takes no mail: \(Files.lastError)")
    }
    defer { close(file) }
    try Files.writeAll(message, to: file, path: temporary)
    try Files.own(temporary, by: data.user)
    guard rename(temporary, "\(maildir)/new/\(name)") == 0 else {
      throw PrivateServerError.unusable(path: maildir, reason: "takes no mail: \(Files.lastError)")
    }
  }

  /// Appends to an mbox under the lock that Dovecot is told to use. Lines that begin with `From ` get a `>`.
  private func deliverToFile(_ path: String, _ message: [UInt8]) throws {
    let file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o600)
    guard file >= 0 else { throw PrivateServerError.unusable(path: path, reason: "takes no mail: \(Files.lastError)") }
    defer { close(file) }
    try Files.own(path, by: data.user)
    var range = flock()
    range.l_type = Int16(F_WRLCK)
    range.l_whence = Int16(SEEK_SET)
    guard fcntl(file, F_SETLKW, &range) == 0 else {
      throw PrivateServerError.unusable(path: path, reason: "cannot be locked: \(Files.lastError)")
    }
    let from = Array("From ".utf8)
    var bytes = Array("From sandbox Thu Jan  1 00:00:00 1970\n".utf8)
    for line in message.split(separator: 10, omittingEmptySubsequences: false) {
      if line.starts(with: from) { bytes.append(62) }
      bytes += line + [10]
    }
    try Files.writeAll(bytes + [10], to: file, path: path)
  }
}
