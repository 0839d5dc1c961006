import Foundation
import PrivateServers
import Synchronization

/// A POP3 server of another make than ``PrivateDovecot``, as its Debian package runs it, with the accounts `anna` and `bob`.
///
/// The packages are not installed: `ops/test` fetches them into the folder that `POSTRIDER_POP3_SERVERS` names. Each
/// server runs as root in namespaces of its own, where that folder lies over the system's and the accounts exist, and ends
/// with this process.
public final class OtherPOP3Server: Sendable {
  /// Which server.
  public enum Kind: String, Sendable, CaseIterable {
    /// Openwall's: USER and PASS, no CAPA, one file per mailbox.
    case popa3d
    /// GNU mailutils: one file per mailbox, locked while it is open.
    case mailutils
    /// Courier: Maildir, never locked, `LOGIN-DELAY 10`.
    case courier
    /// Cyrus: a store of its own, SASL by libsasl2.
    case cyrus
  }

  /// The accounts' password.
  public static let password = "correct horse"

  /// Which server.
  public let kind: Kind
  /// Where it listens on 127.0.0.1.
  public let port: Int
  private let folder: String
  private let cache: String
  private let program: PrivateProgram
  private let log: String
  private static let deliveries = Mutex(0)

  private init(kind: Kind, port: Int, folder: String, cache: String, program: PrivateProgram, log: String) {
    self.kind = kind
    self.port = port
    self.folder = folder
    self.cache = cache
    self.program = program
    self.log = log
  }

  /// Starts one and waits until it greets. Throws ``TestFailure`` when the packages are not there.
  public static func start(_ kind: Kind) async throws -> OtherPOP3Server {
    guard let cache = ProcessInfo.processInfo.environment["POSTRIDER_POP3_SERVERS"],
      FileManager.default.fileExists(atPath: cache + "/.packages")
    else {
      throw TestFailure(
        "POSTRIDER_POP3_SERVERS names no folder with the packages of other mail servers; ops/test fetches them")
    }
    let directory = try await TestServers.shared.dedicatedDirectory(named: kind.rawValue)
    let folder = directory.path + "/root"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    try Data(OtherPOP3Script.text.utf8).write(to: URL(fileURLWithPath: folder + "/start"))
    let port = try LoopbackPort.free()
    let program = try await PrivateProgram.start(
      kind.rawValue, program: "/usr/bin/unshare",
      arguments: [
        "--mount", "--pid", "--fork", "--kill-child", "/bin/bash", folder + "/start", cache, folder, "\(port)",
        kind.rawValue,
      ], environment: ["PATH": "/usr/sbin:/usr/bin:/sbin:/bin"], in: directory)
    let server = OtherPOP3Server(
      kind: kind, port: port, folder: folder, cache: cache, program: program, log: directory.logPath(kind.rawValue))
    let isReady = await eventually(within: .seconds(180)) { !program.isRunning || LoopbackPort.greets(port) }
    guard isReady, program.isRunning else {
      await server.stop()
      let text = (try? String(contentsOfFile: server.log, encoding: .utf8)) ?? ""
      throw TestFailure("\(kind) did not start:\n\(text.suffix(2_000))")
    }
    return server
  }

  /// Ends it with its sessions.
  public func stop() async { await program.stop() }

  /// Puts a message into an account's mailbox.
  public func deliver(_ text: String, to account: String = "anna") async throws {
    let number = Self.deliveries.withLock { number in
      number += 1
      return number
    }
    let unix = text.replacingOccurrences(of: "\r\n", with: "\n")
    switch kind {
    case .popa3d, .mailutils:
      let path = "\(folder)/mail/\(account)"
      let old = FileManager.default.contents(atPath: path) ?? Data()
      let new = Data("From sandbox Thu Jan  1 00:00:00 1970\n\(unix)\n".utf8)
      try (old + new).write(to: URL(fileURLWithPath: path))
      try own(path)
    case .courier:
      let path = "\(folder)/home/\(account)/Maildir/new/\(Int(Date().timeIntervalSince1970)).M\(number)P1.sandbox"
      try Data(unix.utf8).write(to: URL(fileURLWithPath: path))
      try own(path)
    case .cyrus:
      let file = "\(folder)/message-\(number)"
      try Data(text.utf8).write(to: URL(fileURLWithPath: file))
      let delivery = try RunningProgram(
        ["--mount", "/bin/bash", folder + "/start", cache, folder, account, "cyrus-deliver", "message-\(number)"],
        executable: "/usr/bin/unshare")
      let code = await delivery.exit()
      let words = delivery.output + delivery.errors
      delivery.forget()
      guard code == 0 else { throw TestFailure("Cyrus took no message: \(words)") }
    }
  }

  private func own(_ path: String) throws {
    try FileManager.default.setAttributes(
      [.ownerAccountID: 4_001, .groupOwnerAccountID: 4_001, .posixPermissions: 0o600], ofItemAtPath: path)
  }
}
