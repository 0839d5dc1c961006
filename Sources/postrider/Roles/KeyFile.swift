import FoundationEssentials
import PostgresStore
import PostriderCore

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// The file of a key ring, line by line, so that comments and order stay what they are.
struct KeyFile {
  let path: String
  private var lines: [String]

  /// Reads it; it must be a key ring. Throws ``ClientError``.
  init(_ path: String) throws {
    self.path = path
    guard let data = FileManager.default.contents(atPath: path) else {
      throw ClientError.failed("\(Terminal.safe(path)) cannot be read; `postrider keys generate --file` makes one")
    }
    let text = String(decoding: data, as: UTF8.self)
    do { _ = try KeyRing(Secret(text)) } catch { throw ClientError.failed("\(Terminal.safe(path)): \(error)") }
    lines = text.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    if lines.last?.isEmpty == true { lines.removeLast() }
  }

  /// The ids, the encrypting one first.
  var ids: [String] { lines.compactMap(Self.id) }

  private static func id(_ line: String) -> String? {
    let trimmed = line.drop(while: \.isWhitespace)
    guard !trimmed.isEmpty, !trimmed.hasPrefix("#"), let colon = trimmed.firstIndex(of: ":") else { return nil }
    var id = trimmed[..<colon]
    while id.last?.isWhitespace == true { id.removeLast() }
    return String(id)
  }

  private func position(_ id: String) throws -> Int {
    guard let position = lines.firstIndex(where: { Self.id($0) == id }) else {
      throw ClientError.failed("there is no key \(Terminal.safe(id)) in \(Terminal.safe(path)); it holds \(list)")
    }
    return position
  }

  private var list: String { ids.joined(separator: ", ") }

  /// Appends the key of a ring of one, which decrypts and does not encrypt yet.
  mutating func append(_ ring: KeyRing) throws {
    if let taken = ring.ids.first(where: ids.contains) {
      throw ClientError.failed("there is a key \(taken) already; a key keeps its id for ever, so choose another")
    }
    lines += ring.text.revealed.split(separator: "\n").map(String.init)
  }

  /// Lets a key encrypt from now on.
  mutating func promote(_ id: String) throws {
    let line = lines.remove(at: try position(id))
    let first = lines.firstIndex { Self.id($0) != nil } ?? lines.endIndex
    lines.insert(line, at: first)
  }

  /// Takes a key out. The first one never: it encrypts.
  mutating func remove(_ id: String) throws {
    let position = try position(id)
    if ids.first == id {
      throw ClientError.failed("the key \(id) encrypts; promote another one first, and rotate")
    }
    lines.remove(at: position)
  }

  /// Replaces the file as a whole, with the mode and the owner that it has.
  func write() throws {
    var status = stat()
    guard stat(path, &status) == 0 else { throw Self.failure(path) }
    let temporary = "\(path).new"
    unlink(temporary)
    var file = try NewFile(temporary)
    do {
      try file.write(Array(lines.map { $0 + "\n" }.joined().utf8))
      try file.close()
    } catch {
      file.discard()
      throw error
    }
    // The owner first: whoever gets the file must not get it with rights for others.
    if geteuid() == 0 { _ = chown(temporary, status.st_uid, status.st_gid) }
    guard chmod(temporary, status.st_mode & 0o777) == 0, rename(temporary, path) == 0 else {
      unlink(temporary)
      throw Self.failure(path)
    }
  }

  private static func failure(_ path: String) -> ClientError {
    .failed("\(Terminal.safe(path)) cannot be replaced: \(Terminal.words(errno: errno))")
  }
}
