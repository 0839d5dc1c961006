import Foundation

/// How other processes join a running `postrider dev`: variables in a file of its data directory (mode 0600).
enum ClusterFile {
  /// The variables of worker and scheduler processes.
  static let cluster = "cluster.env"
  /// The variables of the administration commands.
  static let cli = "cli.env"

  /// Writes variables so that only the owner can read them, replacing the file as a whole.
  static func write(_ variables: [String: String], to name: String, in directory: String) throws {
    let text = EnvironmentFile.text(variables)
    let path = "\(directory)/\(name)"
    let temporary = "\(path).new"
    // Whatever a killed process left behind must not lend its mode to the new file.
    try? FileManager.default.removeItem(atPath: temporary)
    guard
      FileManager.default.createFile(
        atPath: temporary, contents: Data(text.utf8), attributes: [.posixPermissions: 0o600]),
      rename(temporary, path) == 0
    else { throw CocoaError(.fileWriteUnknown, userInfo: [NSFilePathErrorKey: path]) }
  }

  /// Reads the variables for a joining process.
  static func read(in directory: String, name: String = cluster) throws -> [String: String] {
    let path = "\(directory)/\(name)"
    guard let text = try? String(contentsOfFile: path, encoding: .utf8) else {
      throw ServiceUnreachable(
        description: "there is no running `postrider dev` in \(directory): \(path) cannot be read; "
          + "start one with `postrider dev --data \(directory)`")
    }
    return EnvironmentFile.variables(text)
  }
}
