/// Files of lines `NAME='value'`, which a shell reads with `.` as well.
enum EnvironmentFile {
  /// A value as a shell takes it literally: in single quotes, a single quote in it as `'\\''`.
  static func quoted(_ value: String) -> String { "'" + value.replacing("'", with: "'\\''") + "'" }

  /// The value of a shell's word: single quotes, double quotes and backslashes are taken off, nothing is expanded.
  ///
  /// A word without its closing quote is returned as it is: the file may have been written by hand, without quotes.
  static func unquoted(_ word: Substring) -> String {
    var value = ""
    var quote: Character?
    var characters = word.makeIterator()
    while let character = characters.next() {
      if character == quote {
        quote = nil
      } else if character == "\\", quote != "'" {
        guard let next = characters.next() else { return String(word) }
        // In double quotes a backslash is only special before these.
        if quote != nil && !"$`\"\\".contains(next) { value.append(character) }
        value.append(next)
      } else if quote == nil, character == "'" || character == "\"" {
        quote = character
      } else {
        value.append(character)
      }
    }
    return quote == nil ? value : String(word)
  }

  /// The lines of a file, sorted by name. No value may hold a line end.
  static func text(_ variables: [String: String]) -> String {
    variables.sorted { $0.key < $1.key }.map { "\($0.key)=\(quoted($0.value))\n" }.joined()
  }

  /// The variables of a file's text; blank lines and lines with `#` are skipped.
  static func variables(_ text: String) -> [String: String] {
    var variables: [String: String] = [:]
    for line in text.split(whereSeparator: \.isNewline) {
      guard !line.hasPrefix("#"), let equals = line.firstIndex(of: "=") else { continue }
      variables[String(line[..<equals])] = unquoted(line[line.index(after: equals)...])
    }
    return variables
  }
}
