import Foundation
import MailMessage
import PostriderCore
import Testing

/// Messages collected elsewhere, when some lie beside the package or where `POSTRIDER_CORPORA` points.
private enum Corpus {
  static let files: [String] = {
    let package = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    let named = ProcessInfo.processInfo.environment["POSTRIDER_CORPORA"].map { URL(filePath: $0) }
    let root = named ?? package.deletingLastPathComponent().appending(path: "shared/corpora")
    let folder = root.appending(path: "mail-parser")
    let found = FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil)
    return (found?.compactMap { ($0 as? URL)?.path } ?? []).filter { $0.hasSuffix(".eml") }.sorted()
  }()
}

@Suite("A corpus of real and malformed messages", .enabled(if: !Corpus.files.isEmpty, "no corpus beside the package"))
struct CorpusTests {
  @Test func everyMessageParsesAndHoldsNoNUL() throws {
    for file in Corpus.files {
      let parsed = try MessageReader.parse(file: file)
      let texts = parsed.allTexts
      #expect(texts.allSatisfy { !$0.contains("\0") }, "\(file)")
      #expect(parsed.envelope.subject.count <= 2_000, "\(file)")
    }
  }
}
