import FoundationEssentials
import Hummingbird
import PostriderCore
import Testing

@testable import AdminServer

@Suite("OpenAPI document")
struct OpenAPITests {
  let document = DocumentedAPI.shared.document

  @Test("every route of the table is in the document, and nothing else is")
  func complete() {
    let documented = (document["paths"]?.members ?? []).flatMap { path in
      path.value.members.map { "\($0.key.uppercased()) \(path.key)" }
    }
    #expect(Set(documented) == Set(AdminServer.routes.map { "\($0.method) \($0.path)" }))
    #expect(documented.count == AdminServer.routes.count)
  }

  @Test("every route says what it answers, and its parameters and fields have help", arguments: AdminServer.routes)
  func help(_ route: RouteDescription) {
    let place = "\(route.method) \(route.path)"
    #expect(route.answer != nil, "\(place): say what it answers: answers: .of(TheType.self)")
    for reason in route.answer?.unreadables ?? [] { Issue.record("\(place): \(reason)") }
    for parameter in route.query + (route.messageQuery ?? []) {
      #expect(
        parameter.help.isSentence,
        """
        \(place): the parameter \(parameter.name) has no help text; write QueryParameter("\(parameter.name)", .shape, \
        "What it means.") in its table
        """)
    }
    for (pointer, field) in route.body?.allFields ?? [] {
      #expect(
        field.help.isSentence,
        """
        \(place): the field \(pointer) has no help text; write Field("\(field.name)", .shape, "What it means.", in: its \
        range, standard: "its default") in its JSONShape
        """)
      // What is required has no default, and a default is a value that is allowed.
      if let standard = field.standard, let bounds = field.bounds, field.shape == .integer {
        #expect(Int(standard).map { bounds.contains($0) } == true, "\(place): \(pointer)")
      }
      #expect(!(field.isRequired && field.standard != nil), "\(place): \(pointer)")
    }
    #expect(route.summary.isSentence, "\(place): needs a sentence as its summary")
  }

  @Test("every operation has an id of its own, and a name stands for one schema")
  func names() {
    let operations = (document["paths"]?.members ?? []).flatMap { $0.value.members.map(\.value) }
    let identifiers = operations.compactMap { $0["operationId"] }
    #expect(identifiers.count == operations.count && Set(identifiers).count == identifiers.count)
    var objects: [String: AnswerShape.Object] = [:]
    for object in AdminServer.routes.flatMap({ $0.answer?.objects ?? [] }) {
      #expect(
        objects.updateValue(object, forKey: object.name) ?? object == object, "two types are named \(object.name)")
    }
  }

  @Test("every reference leads somewhere")
  func references() {
    let references = Self.references(in: document)
    #expect(references.count > 300)
    for reference in Set(references) {
      #expect(DocumentedAPI.shared.resolved(["$ref": .string(reference)]) != .null, "\(reference)")
    }
  }

  private static func references(in value: JSONValue) -> [String] {
    switch value {
    case .object(let members):
      members.flatMap { member -> [String] in
        if member.key == "$ref", case .string(let text) = member.value { return [text] }
        return references(in: member.value)
      }
    case .array(let items): items.flatMap { references(in: $0) }
    default: []
    }
  }

  @Test(
    "the example of every body is one that its route takes", arguments: AdminServer.routes.filter { $0.body != nil })
  func examples(_ route: RouteDescription) {
    guard let shape = route.body else { return }
    #expect(shape.problems(of: shape.example) == [], "\(route.method) \(route.path)")
  }

  /// Bodies that are made, not changed, so that nothing needs to be there before.
  static let creating = AdminServer.routes.filter {
    $0.method == "POST" && !$0.path.contains("{") && $0.body?.allFields.contains { $0.field.bounds != nil } == true
      && !$0.path.hasSuffix("/webhooks") && !$0.path.hasSuffix("/outgoing-emails")
  }

  @Test("documented ranges are the ones that count", arguments: creating)
  func ranges(_ route: RouteDescription) async throws {
    guard let shape = route.body else { return }
    try await TestAPI(channel: .unixSocket).with { client in
      for (pointer, field) in shape.allFields {
        guard let bounds = field.bounds else { continue }
        let tooMuch: JSONValue =
          field.shape == .integer
          ? JSONValue(bounds.upperBound + 1) : .string(String(repeating: "x", count: bounds.upperBound + 1))
        var body = shape.example.setting(tooMuch, at: pointer.split(separator: "/").map(String.init), in: shape)
        // Else the outgoing account is the incoming one, whatever is given.
        if pointer.hasPrefix("/outgoing/") { body["useSameSettingsForOutgoing"] = false }
        let path = String(route.path.dropFirst(APIRoutes.prefix.count))
        let answer = try await client.post(path, body.text)
        #expect(answer.status == 422, "\(route.path) \(pointer)")
        let errors = try answer.problem().errors ?? []
        #expect(errors.contains { $0.pointer == pointer }, "\(route.path) \(pointer): \(errors)")
      }
    }
  }

  @Test("it is served without a token")
  func served() async throws {
    let answer = try await TestAPI().get("//openapi.json", as: nil)
    #expect(answer.status == 200 && answer.headers[.contentType] == "application/json; charset=utf-8")
    #expect(answer.text == AdminServer.openAPI(AdminServerConfiguration()))
    #expect(try await TestAPI().get("//", as: nil).text.contains(#""openapi":"/openapi.json""#))
  }

  @Test("a shape is read off a type: optional fields, words, lists, keys that are data, ids")
  func shapes() {
    struct Inner: Codable { var id: MailboxID }
    enum Word: String, Codable, CaseIterable { case one, two = "zwei" }
    struct Outer: Codable {
      var inner: Inner
      var inners: [Inner]?
      var word: Word
      var counts: [String: Int]
      var at: Date?
      var share: Double
      var kind: JobKind
      var on: Bool
    }
    let inner = AnswerShape.object(
      .init(name: "Inner", properties: [.init(name: "id", shape: .integer, isOptional: false)]))
    let expected = AnswerShape.object(
      .init(
        name: "Outer",
        properties: [
          .init(name: "inner", shape: inner, isOptional: false),
          .init(name: "inners", shape: .list(of: inner), isOptional: true),
          .init(name: "word", shape: .choice(["one", "zwei"]), isOptional: false),
          .init(name: "counts", shape: .map(of: .integer), isOptional: false),
          .init(name: "at", shape: .date, isOptional: true),
          .init(name: "share", shape: .number, isOptional: false),
          .init(name: "kind", shape: .choice(["poll", "send", "test"]), isOptional: false),
          .init(name: "on", shape: .boolean, isOptional: false),
        ]))
    #expect(AnswerShape.of(Outer.self) == expected)
    struct ByHand: Decodable {
      init(from decoder: any Decoder) throws { _ = try decoder.unkeyedContainer() }
    }
    #expect(AnswerShape.of(ByHand.self).unreadables.count == 1)
  }

  @Test("a value that is not as documented is found")
  func validator() {
    let schema: JSONValue = [
      "type": "object", "required": ["a"],
      "properties": ["a": ["type": "integer"], "b": ["type": "string", "enum": ["x"]]],
    ]
    func problems(_ value: JSONValue) -> [String] { DocumentedAPI.shared.problems(of: value, schema, at: "") }
    #expect(problems(["a": 1, "b": "x"]) == [])
    #expect(problems(["b": "y"]) == ["/b: y is not listed", "/a is missing"])
    #expect(problems(["a": "1", "c": 1]) == ["/a: a string where integer is documented", "/c is not in the document"])
  }
}

extension String {
  fileprivate var isSentence: Bool { count > 4 && hasSuffix(".") }
}

extension JSONShape {
  /// Every field at any depth of objects with its pointer.
  fileprivate var allFields: [(pointer: String, field: Field)] {
    switch self {
    case .object(let fields):
      fields.flatMap { field in
        [("/\(field.name)", field)] + field.shape.allFields.map { ("/\(field.name)\($0.pointer)", $0.field) }
      }
    // Items have no name of their own; their fields count all the same, under the list's.
    case .array(let item, _): item.allFields
    default: []
    }
  }
}

extension JSONValue {
  /// The value with a field set, with what else an object on the way there requires.
  fileprivate func setting(_ value: JSONValue, at path: [String], in shape: JSONShape) -> JSONValue {
    guard let name = path.first else { return value }
    var fields: [JSONShape.Field] = []
    if case .object(let found) = shape { fields = found }
    let inner = fields.first { $0.name == name }?.shape ?? .nothing
    var changed = self
    let before = self[name] ?? (path.count > 1 ? inner.example : .null)
    changed[name] = before.setting(value, at: Array(path.dropFirst()), in: inner)
    return changed
  }
}

extension AnswerShape {
  fileprivate var unreadables: [String] {
    switch self {
    case .unreadable(let reason): [reason]
    case .list(let item), .map(let item): item.unreadables
    case .object(let object): object.properties.flatMap { $0.shape.unreadables }
    default: []
    }
  }

  fileprivate var objects: [Object] {
    switch self {
    case .list(let item), .map(let item): item.objects
    case .object(let object): [object] + object.properties.flatMap { $0.shape.objects }
    default: []
    }
  }
}
