import Foundation
import MailProtocols
import PostriderCore
import Testing

@testable import Worker

@Suite("What a session takes of a listing")
struct MailboxSurveyTests {
  private func page(_ uidls: String...) throws -> [POP3Entry] {
    try uidls.enumerated().map { POP3Entry(number: $0.offset + 1, uidl: try #require(UniqueID($0.element))) }
  }

  @Test("what failed before comes behind everything else, and what was tried last at the end")
  func failing() throws {
    var survey = MailboxSurvey(limit: 4)
    survey.add(
      try page("a", "b", "c", "d", "e"), unknown: ["a", "b", "c", "d", "e"],
      failing: [
        "a": Date(timeIntervalSince1970: 3), "b": Date(timeIntervalSince1970: 1), "c": Date(timeIntervalSince1970: 2),
      ])
    survey.endList()
    survey.finish()
    #expect(survey.new.map(\.number) == [4, 5, 2, 3])
    #expect(survey.hasMore && survey.unknown == 5 && survey.known == 0)
  }

  @Test("ids that repeat are offered until all of them are settled, and are not taken for the stored message")
  func repeated() throws {
    let entries = try page("a", "same", "same", "new")
    for isSettled in [false, true] {
      var survey = MailboxSurvey(limit: 10)
      survey.add(entries, unknown: ["new"], stored: ["a", "same"])
      survey.endList()
      #expect(survey.ids.areRepeated && survey.stored.map(\.number) == [1])
      let held = [LedgerEntry(uidl: "same", isStored: true), LedgerEntry(uidl: "same 0123", isStored: true)]
      survey.add(copies: Array(entries[1...2]), held: isSettled ? held : [held[0]])
      survey.finish()
      #expect(survey.new.map(\.number) == (isSettled ? [4] : [4, 2, 3]))
      #expect(survey.known == (isSettled ? 3 : 1) && survey.unknown == 1 && !survey.hasMore)
      #expect(survey.ids.contains("same 0123") && !survey.ids.contains("other"))
    }
  }

  @Test("messages of one id are told apart by their content, also from what earlier sessions stored")
  func keys() throws {
    let entries = try page("same", "same", "same")
    let (one, two) = ([UInt8](repeating: 1, count: 32), [UInt8](repeating: 2, count: 32))
    var fresh = RepeatedIDs(entries)
    let keys = zip(entries, [one, two, one]).map { fresh.key(of: $0, $1) }
    #expect(keys.map(\.uidl) == ["same", "same 0202020202020202", "same"])
    #expect(keys.map(\.copy) == [nil, nil, "same 0101010101010101 2"])
    var later = RepeatedIDs([entries[0]], ["same": [LedgerEntry(uidl: "same", isStored: true, contentHash: one)]])
    let known = [two, one].map { later.key(of: entries[0], $0).uidl }
    #expect(known == ["same 0202020202020202", "same"])
    // Of one in quarantine the content is not known: nothing is taken for it.
    var quarantined = RepeatedIDs([entries[0]], ["same": [LedgerEntry(uidl: "same", isStored: false)]])
    let other = quarantined.key(of: entries[0], one)
    #expect(other.uidl == "same 0101010101010101" && other.copy == nil)
  }
}
