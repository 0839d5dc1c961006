import Foundation
import PrivateServers

/// fetchmail as somebody else's measure of what a poll costs.
struct Fetchmail {
  let directory: String

  /// CPU seconds for so many polls of an empty mailbox by one process; `nil` where fetchmail is not installed or cannot
  /// do it.
  func poll(_ count: Int, port: Int, caPath: String?) async throws -> Double? {
    let folder = directory + "/fetchmail-\(port)"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    let tls = caPath.map { "ssl sslcertck sslcertfile \"\($0)\"" } ?? "sslproto ''"
    let entries = (1...count).map {
      "poll bench\($0) via 127.0.0.1 port \(port) protocol pop3 user \"bench\" password \"bench\" \(tls) mda \"/bin/false\"\n"
    }
    let file = folder + "/rc"
    guard
      FileManager.default.createFile(
        atPath: file, contents: Data(entries.joined().utf8), attributes: [.posixPermissions: 0o600])
    else { throw BenchFailure(description: "\(file) cannot be written") }
    let before = Machine.childrenCPUSeconds
    do {
      // It exits with 1 when there was no mail, which is what is wanted here.
      _ = try await PrivateProgram.output(
        of: "env",
        [
          "FETCHMAILHOME=\(folder)", "sh", "-c",
          "command -v fetchmail >/dev/null || exit 3; fetchmail -f \"$0\"; test $? -le 1",
          file,
        ], package: "coreutils")
    } catch {
      return nil
    }
    return (Machine.childrenCPUSeconds - before) * 1_000 / Double(count)
  }
}
