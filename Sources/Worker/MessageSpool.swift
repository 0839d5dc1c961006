import Crypto
import Foundation
import PostriderCore

/// Collects one message while it arrives: in memory while small, in a spool file from then on.
///
/// Bounds the memory of a session however large the message is. The file is private (0600) and removed by
/// ``remove()``, or by ``Content`` 's taker after the store took it.
struct MessageSpool {
  private let directory: String
  private let memoryOctets: Int
  private var bytes: [UInt8] = []
  private var file: (handle: FileHandle, path: String)?
  private var hash = SHA256()
  private(set) var sizeOctets: Int64 = 0

  init(directory: String, memoryOctets: Int) {
    self.directory = directory
    self.memoryOctets = memoryOctets
  }

  mutating func append(_ chunk: [UInt8]) throws {
    hash.update(data: chunk)
    sizeOctets += Int64(chunk.count)
    if let file {
      try file.handle.write(contentsOf: chunk)
    } else if bytes.count + chunk.count <= memoryOctets {
      bytes.append(contentsOf: chunk)
    } else {
      let path = "\(directory)/postrider-\(UUID().uuidString).eml"
      guard FileManager.default.createFile(atPath: path, contents: nil, attributes: [.posixPermissions: 0o600]),
        let handle = FileHandle(forWritingAtPath: path)
      else { throw SpoolError(path: path) }
      file = (handle, path)
      try handle.write(contentsOf: bytes)
      try handle.write(contentsOf: chunk)
      bytes = []
    }
  }

  /// The whole message and its SHA-256.
  mutating func finish() throws -> (content: Content, hash: [UInt8]) {
    let digest = Array(hash.finalize())
    if let file {
      try file.handle.close()
      return (.file(path: file.path, sizeOctets: sizeOctets), digest)
    }
    return (.bytes(bytes), digest)
  }

  /// Forgets everything, also the file.
  mutating func remove() {
    // Nothing is lost when either fails: the file holds a copy of what is still on the server.
    if let file {
      try? file.handle.close()
      try? FileManager.default.removeItem(atPath: file.path)
    }
    file = nil
    bytes = []
  }
}

/// The spool directory cannot be written.
struct SpoolError: Error, CustomStringConvertible {
  let path: String
  var description: String { "cannot create the spool file \(path); check the directory's rights and free space" }
}

extension Content {
  /// Removes the spool file, if there is one.
  func removeFile() {
    if case .file(let path, _) = self {
      // A left-over spool file costs space only.
      try? FileManager.default.removeItem(atPath: path)
    }
  }
}

extension ReceivedMessage {
  /// Removes the spool files of the message and of its attachments.
  func removeFiles() {
    raw.removeFile()
    for attachment in attachments { attachment.content?.removeFile() }
  }
}
