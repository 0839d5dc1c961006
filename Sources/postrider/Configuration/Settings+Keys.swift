import Foundation
import PostgresStore
import PostriderCore

extension Settings {
  /// The key ring, from the environment or its file. Throws ``Settings/Problems`` and ``KeyRing/FormatError``.
  func keyRing() throws -> KeyRing {
    if let text = self.text(.keysRing) { return try KeyRing(Secret(text)) }
    guard let path = self.text(.keysFile) else {
      throw Problems(lines: [
        "\(Setting.keysFile.environmentName): is required (or \(Setting.keysRing.environmentName)). "
          + "`postrider keys generate --file FILE` makes a key ring."
      ])
    }
    do {
      return try KeyRing(Secret(String(contentsOfFile: path, encoding: .utf8)))
    } catch {
      throw Problems(lines: ["\(Setting.keysFile.environmentName): \(path): \(error)"])
    }
  }
}
