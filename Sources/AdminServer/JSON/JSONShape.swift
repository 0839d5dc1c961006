import PostriderCore

/// What a request's body must look like. Data, so that it can be checked, documented and tested.
public indirect enum JSONShape: Hashable, Sendable {
  /// A string.
  case string
  /// A string that is write-only and only accepted over a secure channel.
  case secret
  /// A whole number of 64 bits.
  case integer
  /// A positive whole number.
  case identifier
  /// `true` or `false`.
  case boolean
  /// A string in ISO 8601 with a time zone.
  case date
  /// One of these strings.
  case choice([String])
  /// A string of octets in base64 (RFC 4648 section 4), without line ends.
  case base64
  /// A list with so many items.
  case array(of: JSONShape, count: ClosedRange<Int>)
  /// An object with these fields and no others.
  case object([Field])

  /// A field of an object. The one source of its documentation: the OpenAPI document and the commands' help read it.
  public struct Field: Hashable, Sendable {
    /// The key.
    public let name: String
    /// What its value must look like.
    public let shape: JSONShape
    /// Whether it may be left out or null.
    public let isRequired: Bool
    /// What it means, with its unit and what happens without it. Every field has one; a test looks.
    public let help: String
    /// The values of a number or the length of a string in characters, as the rules check them; `nil` for no bounds.
    public let bounds: ClosedRange<Int>?
    /// What counts when it is left out, as it would be written; `nil` for nothing, or what `help` says.
    public let standard: String?
    /// A value as it would be written; `nil` where the shape says enough.
    public let example: String?

    init(
      _ name: String, _ shape: JSONShape, isRequired: Bool = false, _ help: String = "",
      in bounds: ClosedRange<Int>? = nil, standard: String? = nil, example: String? = nil
    ) {
      self.name = name
      self.shape = shape
      self.isRequired = isRequired
      self.help = help
      self.bounds = bounds
      self.standard = standard
      self.example = example
    }
  }
}

extension JSONShape {
  /// More wrong fields than this are not listed.
  private static let maximumProblems = 100

  /// Everything that is wrong with a value.
  func problems(of value: JSONValue) -> [FieldProblem] {
    var problems = FieldProblems()
    check(value, at: "", &problems)
    return Array(problems.problems.prefix(Self.maximumProblems))
  }

  private func check(_ value: JSONValue, at pointer: String, _ problems: inout FieldProblems) {
    if problems.problems.count > Self.maximumProblems { return }
    switch (self, value) {
    case (.string, .string), (.secret, .string), (.boolean, .boolean): break
    case (.integer, .number(let text)):
      if Int64(text) == nil { problems.add(pointer, "wrong-type", "must be a whole number of at most 64 bits") }
    case (.identifier, .number(let text)):
      if (Int64(text) ?? 0) < 1 { problems.add(pointer, "out-of-range", "must be a positive whole number") }
    case (.date, .string(let text)):
      if APICoding.date(text) == nil {
        problems.add(pointer, "not-a-date", "must be a date and time such as 2026-03-01T08:00:00Z")
      }
    case (.choice(let words), .string(let text)):
      if !words.contains(text) {
        problems.add(pointer, "not-a-choice", "must be one of \(words.joined(separator: ", "))")
      }
    case (.base64, .string(let text)):
      if !Self.isBase64(text) {
        problems.add(pointer, "not-base64", "must be base64 (RFC 4648 section 4) without line ends")
      }
    case (.array(let shape, let count), .array(let items)):
      if !count.contains(items.count) {
        problems.add(
          pointer, "out-of-range", "must have \(count.lowerBound) to \(count.upperBound) items, has \(items.count)")
      }
      for (index, item) in items.prefix(count.upperBound).enumerated() {
        shape.check(item, at: "\(pointer)/\(index)", &problems)
      }
    case (.object(let fields), .object(let members)): Self.check(members, fields, at: pointer, &problems)
    default: problems.add(pointer, "wrong-type", "must be \(kind), is \(value.kind)")
    }
  }

  private static func check(
    _ members: [JSONValue.Member], _ fields: [Field], at pointer: String, _ problems: inout FieldProblems
  ) {
    var seen: Set<String> = []
    for member in members {
      let place = "\(pointer)/\(escaped(member.key))"
      guard let field = fields.first(where: { $0.name == member.key }) else {
        let known = fields.map(\.name).joined(separator: ", ")
        problems.add(place, "unknown", "is not a field here; there are \(known)")
        continue
      }
      if !seen.insert(member.key).inserted { problems.add(place, "duplicate", "is given twice") }
      if member.value == .null {
        if field.isRequired { problems.add(place, "required", "must not be null") }
      } else {
        field.shape.check(member.value, at: place, &problems)
      }
    }
    for field in fields where field.isRequired && !seen.contains(field.name) {
      problems.add("\(pointer)/\(field.name)", "required", "is required")
    }
  }

  private static func isBase64(_ text: String) -> Bool {
    let octets = text.utf8
    let padding = octets.suffix(2).reversed().prefix { $0 == UInt8(ascii: "=") }.count
    return octets.count % 4 == 0
      && octets.dropLast(padding).allSatisfy {
        (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0) || (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0)
          || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) || $0 == UInt8(ascii: "+") || $0 == UInt8(ascii: "/")
      }
  }

  private var kind: String {
    switch self {
    case .string, .secret, .date, .choice, .base64: "a string"
    case .integer, .identifier: "a whole number"
    case .boolean: "a boolean"
    case .array: "an array"
    case .object: "an object"
    }
  }

  /// A reference token of a JSON pointer (RFC 6901 section 3). Long keys are cut: the answer stays small.
  private static func escaped(_ key: String) -> String {
    Failure.presentable(String(key.prefix(100)))
      .split(separator: "~", omittingEmptySubsequences: false).joined(separator: "~0")
      .split(separator: "/", omittingEmptySubsequences: false).joined(separator: "~1")
  }
}
