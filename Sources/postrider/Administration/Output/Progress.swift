/// How far several things have come: a bar on standard error where people look, nothing elsewhere.
///
/// Results are printed through ``finish(_:)``, which keeps the bar below them.
struct Progress {
  let total: Int
  private(set) var done = 0
  private(set) var failed = 0
  private(set) var note = ""
  private let isVisible: Bool
  private var isDrawn = false
  private let say: (String) throws -> Void

  init(
    total: Int, isVisible: Bool = Terminal.showsProgress, say: @escaping (String) throws -> Void = Terminal.print
  ) {
    self.total = total
    self.isVisible = isVisible
    self.say = say
  }

  /// Counts a finished thing and prints its result line; `nil` prints nothing.
  mutating func finish(_ line: String?, isFailure: Bool) throws {
    done += 1
    if isFailure { failed += 1 }
    if let line {
      clear()
      try say(line)
    }
    draw()
  }

  /// Takes over how far it has come, as somebody else counts it.
  mutating func set(done: Int, failed: Int, waitingFor text: String = "") {
    self.done = done + failed
    self.failed = failed
    note = text
    draw()
  }

  /// Says what it waits for, behind the bar.
  mutating func wait(for text: String) {
    note = text
    draw()
  }

  /// Prints a line for people on standard error, above the bar.
  mutating func remark(_ line: String) {
    clear()
    Terminal.warn(line)
    draw()
  }

  /// Takes the bar away.
  mutating func clear() {
    if isDrawn { Terminal.tell("\r\u{1B}[K") }
    isDrawn = false
  }

  private mutating func draw() {
    guard isVisible else { return }
    Terminal.tell("\r\u{1B}[K" + bar(width: 24))
    isDrawn = true
  }

  /// `[########----------------] 3/9, 1 failed, waiting for a@example.com`.
  func bar(width: Int) -> String {
    let filled = total == 0 ? width : width * min(done, total) / total
    var text = "[" + String(repeating: "#", count: filled) + String(repeating: "-", count: width - filled) + "]"
    text += " \(done)/\(total)"
    if failed > 0 { text += ", \(failed) failed" }
    if !note.isEmpty && done < total { text += ", \(Table.cut(Terminal.safe(note), to: 44))" }
    return text
  }
}
