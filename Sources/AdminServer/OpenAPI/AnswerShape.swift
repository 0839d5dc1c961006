import FoundationEssentials
import PostriderCore

/// What the body of an answer looks like. Read off the type that is encoded, so that it says what is sent and nobody keeps
/// it up to date.
public indirect enum AnswerShape: Hashable, Sendable {
  case string
  /// A whole number of 64 bits.
  case integer
  case number
  case boolean
  /// A string in ISO 8601, in UTC.
  case date
  /// One of these strings; later releases may know more.
  case choice([String])
  case list(of: AnswerShape)
  /// An object with keys that are data.
  case map(of: AnswerShape)
  case object(Object)
  /// Octets of this media type instead of JSON.
  case octets(mediaType: String)
  /// A type that could not be read; why. A test finds it.
  case unreadable(String)

  /// An object with a name of its own.
  public struct Object: Hashable, Sendable {
    /// By which the document refers to it.
    public var name: String
    /// Its fields, in the order in which they are read.
    public var properties: [Property]
  }

  /// A field of an object.
  public struct Property: Hashable, Sendable {
    /// The key.
    public var name: String
    /// What its value looks like.
    public var shape: AnswerShape
    /// Whether it is left out where there is nothing to say.
    public var isOptional: Bool
  }
}

extension AnswerShape {
  /// The shape of what a type encodes itself as. It is found by decoding a value and writing down what is asked for, so
  /// encoding and decoding must be each other's reverse, as those that the compiler makes are.
  public static func of<Value: Decodable>(_ type: Value.Type) -> AnswerShape {
    do {
      return try AnswerProbe.shape(of: type)
    } catch {
      return .unreadable("\(type): \(error)")
    }
  }

  /// An object of this shape with more fields.
  func adding(_ name: String, _ shape: AnswerShape, as object: String) -> AnswerShape {
    guard case .object(var found) = self else { return .unreadable("\(object): only an object has fields") }
    found.name = object
    found.properties.append(Property(name: name, shape: shape, isOptional: false))
    return .object(found)
  }

  /// An object whose only field is a list with one row for each thing that was named.
  static func results<Row: Decodable>(_ row: Row.Type) -> AnswerShape {
    .object(
      Object(
        name: AnswerProbe.name(of: row) + "s",
        properties: [Property(name: "results", shape: .list(of: .of(row)), isOptional: false)]))
  }
}

/// Finds the shape of a `Decodable` type by having it decode itself from nothing.
enum AnswerProbe {
  struct Unreadable: Error, CustomStringConvertible {
    let description: String
  }

  /// What a type decodes itself from.
  static func shape<Value: Decodable>(of type: Value.Type) throws -> AnswerShape {
    if let known = type as? any KnownAnswer.Type { return try known.answerShape }
    if let choices = type as? any CaseIterable.Type, let words = try words(of: choices) { return .choice(words) }
    if type is any RawRepresentable<String>.Type { return .string }
    let record = Record(name: name(of: type))
    _ = try Value(from: ProbeDecoder(record: record))
    return record.shape
  }

  /// Some value of a type.
  static func sample<Value: Decodable>(of type: Value.Type) throws -> Value {
    if let known = type as? any KnownAnswer.Type, let value = known.answerSample as? Value { return value }
    if let choices = type as? any CaseIterable.Type, let value = first(of: choices) as? Value { return value }
    return try Value(from: ProbeDecoder(record: Record(name: "")))
  }

  /// `Page<Mailbox>` is `MailboxPage`; the parameters of other generic types only say what an id belongs to.
  static func name(of type: any Any.Type) -> String {
    let text = String(describing: type)
    guard let bracket = text.firstIndex(of: "<") else { return text }
    let generic = String(text[..<bracket])
    guard generic == "Page" else { return generic }
    return text[text.index(after: bracket)...].dropLast() + generic
  }

  private static func first<Choices: CaseIterable>(of _: Choices.Type) -> Any? { Choices.allCases.first }

  /// The cases as they are written; `nil` where they are not strings.
  private static func words<Choices: CaseIterable>(of _: Choices.Type) throws -> [String]? {
    var words: [String] = []
    for choice in Choices.allCases {
      guard let choice = choice as? any Encodable,
        case .array(let items) = try JSONParser.parse(Array(APICoding.data([AnyEncodable(choice)]))),
        case .string(let word)? = items.first
      else { return nil }
      words.append(word)
    }
    return words
  }

  private struct AnyEncodable: Encodable {
    let value: any Encodable
    init(_ value: any Encodable) { self.value = value }
    func encode(to encoder: any Encoder) throws { try value.encode(to: encoder) }
  }

  /// What one value asked for.
  final class Record {
    let name: String
    private var properties: [AnswerShape.Property] = []
    private var single: AnswerShape?

    init(name: String) { self.name = name }

    func add(_ property: AnswerShape.Property) {
      if !properties.contains(where: { $0.name == property.name }) { properties.append(property) }
    }

    func set(_ shape: AnswerShape) { single = shape }

    var shape: AnswerShape { single ?? .object(AnswerShape.Object(name: name, properties: properties)) }
  }
}

/// A type whose shape is not found by looking inside.
protocol KnownAnswer {
  static var answerShape: AnswerShape { get throws }
  static var answerSample: Self { get }
}

extension String: KnownAnswer {
  static var answerShape: AnswerShape { .string }
  static var answerSample: String { "" }
}

extension Bool: KnownAnswer {
  static var answerShape: AnswerShape { .boolean }
  static var answerSample: Bool { false }
}

extension Int: KnownAnswer {
  static var answerShape: AnswerShape { .integer }
  static var answerSample: Int { 1 }
}

extension Int64: KnownAnswer {
  static var answerShape: AnswerShape { .integer }
  static var answerSample: Int64 { 1 }
}

extension Double: KnownAnswer {
  static var answerShape: AnswerShape { .number }
  static var answerSample: Double { 1 }
}

extension Date: KnownAnswer {
  static var answerShape: AnswerShape { .date }
  static var answerSample: Date { Date(timeIntervalSince1970: 0) }
}

extension Array: KnownAnswer where Element: Decodable {
  static var answerShape: AnswerShape { get throws { .list(of: try AnswerProbe.shape(of: Element.self)) } }
  static var answerSample: [Element] { [] }
}

extension Set: KnownAnswer where Element: Decodable {
  static var answerShape: AnswerShape { get throws { .list(of: try AnswerProbe.shape(of: Element.self)) } }
  static var answerSample: Set<Element> { [] }
}

extension Dictionary: KnownAnswer where Key == String, Value: Decodable {
  static var answerShape: AnswerShape { get throws { .map(of: try AnswerProbe.shape(of: Value.self)) } }
  static var answerSample: [String: Value] { [:] }
}
