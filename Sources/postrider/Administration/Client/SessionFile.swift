import FoundationEssentials
import PostriderCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// The session of `postrider login`, in a file that only its owner may read.
struct SessionFile: Codable, Sendable {
  /// Where it was signed in, as ``ClientSettings/normalized(_:)`` writes it. The token is sent nowhere else.
  var url: String
  var token: String
  /// Who signed in.
  var address: String
  var organization: String
  /// When it ends at the latest.
  var expiresAt: Date

  /// `$XDG_CONFIG_HOME/postrider/session.json`, by default in `~/.config`; `nil` where there is no home.
  static func path(_ environment: [String: String]) -> String? {
    // What is not absolute is to be ignored, says the XDG Base Directory Specification.
    if let folder = environment["XDG_CONFIG_HOME"], folder.hasPrefix("/") { return "\(folder)/postrider/session.json" }
    return ClientSettings.nonempty(environment["HOME"]).map { "\($0)/.config/postrider/session.json" }
  }

  /// `nil` when nobody is signed in, or the file cannot be read.
  static func read(_ path: String, _ warnings: inout [String]) -> SessionFile? {
    guard FileManager.default.fileExists(atPath: path) else { return nil }
    if let mode = SecretFile.mode(path), mode & 0o077 != 0 {
      warnings.append("Warning: others can read \(path), which holds a token: chmod 600 \(path)")
    }
    guard let data = FileManager.default.contents(atPath: path), data.count <= 65_536,
      let session = try? JSONCoding.decoder().decode(SessionFile.self, from: data)
    else {
      warnings.append("Warning: \(path) cannot be read and does not count; `postrider login` writes it anew")
      return nil
    }
    return session
  }

  /// The token, as long as it may be good.
  func usable(now: Date) throws -> String {
    guard now < expiresAt else {
      throw ClientError.failed(
        "the session of \(Terminal.safe(address)) ended at \(Words.time(expiresAt)): sign in again with "
          + "`postrider login`, or forget it with `postrider logout`")
    }
    return token
  }

  /// Puts it in the place of the former one, as a whole.
  func write(_ path: String) throws {
    let folder = String(path.prefix(upTo: path.lastIndex(of: "/") ?? path.endIndex))
    do {
      try FileManager.default.createDirectory(
        atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    } catch {
      throw ClientError.failed("the folder \(Terminal.safe(folder)) cannot be made")
    }
    let temporary = "\(path).new"
    // What a killed command left behind must not lend its mode to the new file.
    unlink(temporary)
    var file = try NewFile(temporary)
    do {
      try file.write(Array(try JSONCoding.text(self).utf8))
      try file.close()
      guard rename(temporary, path) == 0 else {
        throw ClientError.failed("\(Terminal.safe(path)) cannot be written: \(Terminal.words(errno: errno))")
      }
    } catch {
      file.discard()
      throw error
    }
  }

  /// Removes it. Throws ``ClientError`` when it is still there.
  static func remove(_ path: String) throws {
    if unlink(path) != 0 && errno != ENOENT {
      throw ClientError.failed("\(Terminal.safe(path)) cannot be removed: \(Terminal.words(errno: errno))")
    }
  }
}
