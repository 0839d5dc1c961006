import Foundation
import MailMessage
import PostriderCore
import Testing

/// Messages collected elsewhere: every `.eml` under the folder that `POSTRIDER_CORPORA` names.
private enum Corpus {
  static let files: [String] = {
    guard let root = ProcessInfo.processInfo.environment["POSTRIDER_CORPORA"] else { return [] }
    let folder = URL(filePath: root)
    let found = FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil)
    return (found?.compactMap { ($0 as? URL)?.path } ?? []).filter { $0.hasSuffix(".eml") }.sorted()
  }()
}

@Suite(
  "A corpus of real and malformed messages",
  .enabled(if: !Corpus.files.isEmpty, "POSTRIDER_CORPORA names no folder with messages"))
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
