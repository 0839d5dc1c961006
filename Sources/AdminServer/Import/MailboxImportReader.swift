import FoundationEssentials
import PostriderCore

/// Turns a CSV file of mailboxes into rows of an import as it arrives.
///
/// What is wrong with the file as a whole is thrown, what is wrong with a row stands in the row. No value of the column
/// `password` is ever repeated.
public struct MailboxImportReader {
  /// The most rows of a file, without the header.
  public static let maximumRows = 200_000

  private var csv = CSVReader()
  /// What the first row names, in its order; empty before it has come.
  public private(set) var columns: [ImportColumn] = []
  private var rowOfAddress: [String: Int] = [:]
  private var count = 0

  /// Before the first octet.
  public init() {}

  /// Whether the file has a header and a row.
  var isEmpty: Bool { count == 0 }

  /// The rows that these octets complete. Throws ``Problem``.
  public mutating func append(_ bytes: some Sequence<UInt8>) throws -> [ImportRow] {
    try rows { csv, take in try csv.append(bytes, take) }
  }

  /// The end of the file.
  public mutating func finish() throws -> [ImportRow] {
    try rows { csv, take in try csv.finish(take) }
  }

  private mutating func rows(
    _ read: (inout CSVReader, (CSVReader.Record) throws -> Void) throws -> Void
  ) throws -> [ImportRow] {
    var records: [CSVReader.Record] = []
    do {
      try read(&csv) { records.append($0) }
    } catch CSVReader.SyntaxError.unclosedQuote(let row) {
      throw Self.wrong(row, "unclosed-quote", "a quote that is opened in this row is never closed")
    } catch CSVReader.SyntaxError.tooLong(let row) {
      throw Self.wrong(
        row, "too-long",
        "must have at most \(CSVReader.maximumRecordOctets) octets; perhaps a quote in it is never closed")
    }
    var rows: [ImportRow] = []
    for record in records {
      if columns.isEmpty {
        try readHeader(record)
      } else {
        count += 1
        if count > Self.maximumRows {
          throw Self.wrong(record.row, "too-many", "a file has at most \(Self.maximumRows) rows; cut it in parts")
        }
        rows.append(row(record))
      }
    }
    return rows
  }

  private static func wrong(_ row: Int, _ code: String, _ message: String) -> Problem {
    Problem.invalid([FieldProblem("row:\(row)", code, message)])
  }

  // MARK: The header

  private mutating func readHeader(_ record: CSVReader.Record) throws {
    let names = record.fields.map { String(decoding: $0, as: UTF8.self).trimmingSpaces() }
    let known = ImportColumn.allCases.map(\.rawValue).joined(separator: ",")
    var problems = FieldProblems()
    for name in names {
      if let column = ImportColumn.allCases.first(where: { $0.rawValue.lowercased() == name.lowercased() }) {
        if columns.contains(column) { problems.add("row:1", "duplicate", "names the column \(column.rawValue) twice") }
        columns.append(column)
      } else {
        let shown = Failure.presentable(String(name.prefix(100)))
        problems.add(
          "row:1", "unknown",
          "`\(shown)` is not a column; the first row must name columns of \(known), with commas between")
      }
    }
    if !columns.contains(.address) { problems.add("row:1", "required", "must name the column address") }
    try problems.throwIfAny()
  }

  // MARK: Rows

  private mutating func row(_ record: CSVReader.Record) -> ImportRow {
    var row = ImportRow(row: record.row)
    if record.isMalformed {
      row.problems = [
        FieldProblem("", "malformed", "a field with quotes must stand in quotes, and quotes in it must be doubled")
      ]
      return row
    }
    if record.fields.count != columns.count {
      row.problems = [
        FieldProblem("", "wrong-count", "has \(record.fields.count) fields, the header has \(columns.count)")
      ]
      return row
    }
    var values = Values()
    for (column, octets) in zip(columns, record.fields) where !octets.isEmpty { values.read(column, octets) }
    row.address = values.texts[.address].map { String($0.prefix(254)) }
    var mailbox = values.mailbox
    var problems = values.problems.problems
    if problems.isEmpty {
      mailbox.address = values.texts[.address] ?? ""
      problems = mailbox.problems(password: values.password)
      let key = mailbox.address.lowercased()
      if let other = rowOfAddress[key] {
        problems.append(FieldProblem("/address", "duplicate", "stands in row \(other) already"))
      } else if problems.isEmpty {
        rowOfAddress[key] = record.row
      }
    }
    if problems.isEmpty {
      row.mailbox = mailbox
      row.password = values.password
    } else {
      row.problems = problems.map { values.showing($0) }
    }
    return row
  }

  /// The fields of a row by their columns.
  private struct Values {
    var texts: [ImportColumn: String] = [:]
    var mailbox = ImportedMailbox(address: "")
    var password: Secret?
    var problems = FieldProblems()

    mutating func read(_ column: ImportColumn, _ octets: [UInt8]) {
      guard let text = String(validating: octets, as: UTF8.self) else {
        problems.add("/\(column.rawValue)", "not-utf-8", "must be UTF-8")
        return
      }
      if column == .password {
        password = Secret(text)
        return
      }
      let value = text.trimmingSpaces()
      if value.isEmpty { return }
      texts[column] = value
      switch column {
      case .address, .password: break
      case .ownerKind: mailbox.ownerKind = word(column, value)
      case .ownerName: mailbox.ownerName = value
      case .profile: mailbox.profile = value
      case .incomingMethod: mailbox.incomingMethod = word(column, value)
      case .outgoingMethod: mailbox.outgoingMethod = word(column, value)
      case .allowsCredentials: mailbox.allowsCredentials = boolean(column, value)
      case .userName: mailbox.userName = value
      case .processEmailFrom: mailbox.processEmailFrom = date(column, value)
      case .deleteAfterProcessing: mailbox.deleteAfterProcessing = boolean(column, value)
      }
    }

    private mutating func word<Word: CaseIterable & RawRepresentable<String>>(
      _ column: ImportColumn, _ text: String
    ) -> Word? {
      if let word = Word(rawValue: text.lowercased()) { return word }
      let words = Word.allCases.map(\.rawValue).joined(separator: ", ")
      problems.add("/\(column.rawValue)", "not-a-choice", "must be one of \(words)")
      return nil
    }

    private mutating func boolean(_ column: ImportColumn, _ text: String) -> Bool? {
      switch text.lowercased() {
      case "true": return true
      case "false": return false
      default:
        problems.add("/\(column.rawValue)", "wrong-type", "must be true or false")
        return nil
      }
    }

    private mutating func date(_ column: ImportColumn, _ text: String) -> Date? {
      if let date = APICoding.date(text) ?? APICoding.date(text + "T00:00:00Z") { return date }
      problems.add(
        "/\(column.rawValue)", "not-a-date", "must be a day such as 2026-03-01 or a moment such as 2026-03-01T08:00:00Z"
      )
      return nil
    }

    /// A problem with the value that has it; passwords are not among the texts.
    func showing(_ problem: FieldProblem) -> FieldProblem {
      guard let column = ImportColumn(rawValue: String(problem.pointer.dropFirst())), let text = texts[column] else {
        return problem
      }
      let shown = Failure.presentable(String(text.prefix(100)))
      return FieldProblem(problem.pointer, problem.code, "\(problem.message); it is `\(shown)`")
    }
  }
}
