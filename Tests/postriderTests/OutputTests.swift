import Foundation
import PostriderCore
import Testing

@testable import postrider

@Suite("Tables and words for people")
struct OutputTests {
  private func table() -> Table {
    var table = Table(.number("ID"), .flexible("ADDRESS"), .text("STATE"))
    table.add("7", "support@example.com", "running")
    table.add("12", "a@example.com", "off")
    return table
  }

  @Test func columnsAreAlignedAndNothingIsCutWithoutAWidth() {
    #expect(
      table().rendered() == """
        ID  ADDRESS              STATE
         7  support@example.com  running
        12  a@example.com        off
        """)
  }

  @Test func flexibleColumnsAreCutFirst() {
    let text = table().rendered(width: 24)
    #expect(text.split(separator: "\n").allSatisfy { Table.width(String($0)) <= 24 })
    #expect(text.contains(" 7  support@e…   running") || text.contains("support@"))
    #expect(text.contains("…"))
    #expect(text.contains("running"))
  }

  @Test("width on the screen", arguments: [("abc", 3), ("日本", 4), ("é", 1), ("e\u{301}", 1), ("👍", 2), ("", 0)])
  func width(text: String, columns: Int) { #expect(Table.width(text) == columns) }

  @Test("cutting", arguments: [("abcdef", 4, "abc…"), ("abc", 3, "abc"), ("日本語", 4, "日…"), ("日本語", 5, "日本…")])
  func cutting(text: String, columns: Int, expected: String) { #expect(Table.cut(text, to: columns) == expected) }

  @Test func cellsCannotSteerTheTerminal() {
    var table = Table(.text("A"))
    table.add("x\u{1B}[2J\u{202E}y\nz")
    #expect(table.rendered() == "A\nx\\u{1b}[2J\\u{202e}y\\u{a}z")
  }

  @Test func detailsAlignTheirValues() {
    var details = Details()
    details.add("id", "7")
    details.add("none", nil)
    details.heading("incoming")
    details.add("  status", "success")
    #expect(details.rendered() == "id        7\nincoming\n  status  success")
  }

  @Test func theBarShowsHowFarItIs() throws {
    var lines: [String] = []
    var progress = Progress(total: 4, isVisible: false) { lines.append($0) }
    #expect(progress.bar(width: 8) == "[--------] 0/4")
    try progress.finish("one: passed", isFailure: false)
    try progress.finish(nil, isFailure: true)
    progress.wait(for: "waiting for x")
    #expect(progress.bar(width: 8) == "[####----] 2/4, 1 failed, waiting for x")
    #expect(lines == ["one: passed"])
    #expect(Progress(total: 0, isVisible: false).bar(width: 4) == "[####] 0/0")
  }

  @Test("durations", arguments: [(0.35, "350 ms"), (12.54, "12.5 s"), (180, "3 min"), (36_000, "10 h"), (1e6, "12 d")])
  func durations(seconds: Double, expected: String) { #expect(Words.duration(seconds) == expected) }

  @Test("sizes", arguments: [(Int64(9), "9 B"), (12_345, "12.3 kB"), (4_000_000, "4.0 MB"), (5_500_000_000, "5.5 GB")])
  func sizes(octets: Int64, expected: String) { #expect(Words.size(octets) == expected) }

  @Test func timesAreUTCAndSayHowFarAwayTheyAre() {
    #expect(Words.time(Sample.moment) == "2026-03-02 09:00:00Z")
    #expect(Words.time(nil) == "-")
    let now = Sample.moment.addingTimeInterval(180)
    #expect(Words.timeAndDistance(Sample.moment, now: now) == "2026-03-02 09:00:00Z (3 min ago)")
  }

  @Test(
    "dates",
    arguments: [
      ("2026-03-02", 1_772_409_600.0), ("2026-03-02T09:00:00Z", 1_772_442_000),
      ("2026-03-02T10:00:00+01:00", 1_772_442_000),
      ("2026-03-02T09:00:00.500Z", 1_772_442_000.5), ("yesterday", nil), ("", nil),
    ] as [(String, Double?)])
  func dates(text: String, expected: Double?) { #expect(JSONCoding.date(text)?.timeIntervalSince1970 == expected) }

  @Test func datesInJSONHaveMilliseconds() throws {
    #expect(try JSONCoding.text([Sample.moment], pretty: false) == "[\"2026-03-02T09:00:00.000Z\"]")
  }

  @Test(
    "pointers in words",
    arguments: [
      ("/incoming/port", "incoming port"), ("/minimumPollingIntervalMinutes", "minimum polling interval minutes"),
      ("/address", "address"), ("", "the request"), ("/a~1b", "a/b"),
    ])
  func pointers(pointer: String, expected: String) { #expect(ClientError.fieldWords(pointer) == expected) }

  @Test func queriesAreEncoded() {
    #expect(APIClient.encoded([("a", "x y&z=é/@"), ("b", nil), ("c", "1")]) == "?a=x%20y%26z%3D%C3%A9%2F%40&c=1")
    #expect(APIClient.encoded([("b", nil)]) == "")
  }

  @Test func directionsInAFewWords() {
    #expect(Words.brief(DirectionState(method: .none)) == "off")
    #expect(Words.brief(DirectionState(method: .serverSideSync, status: .success, enabled: true)) == "running")
    #expect(
      Words.brief(
        DirectionState(
          method: .serverSideSync, status: .failure, failureCode: "auth.rejected", notRunningReason: "disabled"))
        == "failure, auth.rejected")
    #expect(Words.brief(Sample.mailbox(1).incoming) == "not-tested")
  }
}
