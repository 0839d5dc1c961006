import PostriderCore

extension JSONShape {
  /// The shape as a JSON Schema (2020-12, as OpenAPI 3.1 takes it).
  ///
  /// - Parameters:
  ///   - bounds: of a number's value or a string's length.
  ///   - allowsNull: whether null stands for nothing.
  func schema(in bounds: ClosedRange<Int>? = nil, allowsNull: Bool = false) -> JSONValue {
    var schema: JSONValue = ["type": allowsNull ? .array([.string(typeName), "null"]) : .string(typeName)]
    switch self {
    case .string, .secret:
      if let bounds, bounds.lowerBound > 0 { schema["minLength"] = JSONValue(bounds.lowerBound) }
      if let bounds { schema["maxLength"] = JSONValue(bounds.upperBound) }
      if self == .secret {
        schema["format"] = "password"
        schema["writeOnly"] = true
      }
    case .integer, .identifier:
      schema["format"] = "int64"
      if let lowest = bounds?.lowerBound ?? (self == .identifier ? 1 : nil) { schema["minimum"] = JSONValue(lowest) }
      if let bounds { schema["maximum"] = JSONValue(bounds.upperBound) }
    case .boolean: break
    case .date: schema["format"] = "date-time"
    case .choice(let words): schema["enum"] = .array(words.map { .string($0) } + (allowsNull ? [.null] : []))
    case .base64: schema["contentEncoding"] = "base64"
    case .array(let item, let count):
      schema["items"] = item.schema()
      if count.lowerBound > 0 { schema["minItems"] = JSONValue(count.lowerBound) }
      schema["maxItems"] = JSONValue(count.upperBound)
    case .object(let fields):
      schema["properties"] = .object(fields.map { JSONValue.Member(key: $0.name, value: $0.schema) })
      let required = fields.filter(\.isRequired)
      if !required.isEmpty { schema["required"] = .array(required.map { .string($0.name) }) }
      schema["additionalProperties"] = false
    }
    return schema
  }

  private var typeName: String {
    switch self {
    case .string, .secret, .date, .choice, .base64: "string"
    case .integer, .identifier: "integer"
    case .boolean: "boolean"
    case .array: "array"
    case .object: "object"
    }
  }

  /// A value of the shape: every field of an object that is required or has an example of its own, and no other.
  var example: JSONValue { example(written: nil, in: nil) }

  fileprivate func example(written: String?, in bounds: ClosedRange<Int>?) -> JSONValue {
    switch self {
    case .string, .secret, .base64: .string(written ?? "text")
    case .integer: .number(written ?? String(bounds?.lowerBound ?? 1))
    case .identifier: .number(written ?? "4711")
    case .boolean: .boolean(written != "false")
    case .date: .string(written ?? "2026-03-01T08:00:00Z")
    case .choice(let words): .string(written ?? words.first ?? "")
    case .array(let item, let count): count.upperBound == 0 ? [] : [item.example(written: written, in: nil)]
    case .object(let fields):
      .object(
        fields.filter { $0.isRequired || $0.example != nil }
          .map { JSONValue.Member(key: $0.name, value: $0.sample) })
    }
  }

  /// A default as JSON.
  fileprivate func value(written: String) -> JSONValue {
    switch self {
    case .integer, .identifier: .number(written)
    case .boolean: .boolean(written == "true")
    default: .string(written)
    }
  }
}

extension JSONShape.Field {
  /// The field as a JSON Schema.
  var schema: JSONValue {
    var schema = shape.schema(in: bounds, allowsNull: !isRequired)
    schema["description"] = .string(help)
    if let standard { schema["default"] = shape.value(written: standard) }
    return schema
  }

  fileprivate var sample: JSONValue { shape.example(written: example ?? standard, in: bounds) }
}

extension QueryParameter {
  /// The parameter as OpenAPI's Parameter Object.
  var json: JSONValue {
    var schema = shape.schema(in: bounds)
    if let standard { schema["default"] = shape.value(written: standard) }
    return [
      "name": .string(name), "in": "query", "required": .boolean(isRequired), "description": .string(help),
      "schema": schema,
    ]
  }
}

extension AnswerShape {
  /// The shape as a JSON Schema; objects become references to the document's components, which they are added to.
  func schema(_ components: inout [String: JSONValue]) -> JSONValue {
    switch self {
    case .string: return ["type": "string"]
    case .integer: return ["type": "integer", "format": "int64"]
    case .number: return ["type": "number"]
    case .boolean: return ["type": "boolean"]
    case .date: return ["type": "string", "format": "date-time"]
    case .choice(let words): return ["type": "string", "enum": .array(words.map { .string($0) })]
    case .list(let item): return ["type": "array", "items": item.schema(&components)]
    case .map(let value): return ["type": "object", "additionalProperties": value.schema(&components)]
    case .object(let object):
      var schema: JSONValue = ["type": "object"]
      let properties = object.properties.map {
        JSONValue.Member(key: $0.name, value: $0.shape.schema(&components))
      }
      schema["properties"] = .object(properties)
      let required = object.properties.filter { !$0.isOptional }
      if !required.isEmpty { schema["required"] = .array(required.map { .string($0.name) }) }
      components[object.name] = schema
      return ["$ref": .string("#/components/schemas/\(object.name)")]
    case .octets(let mediaType):
      return mediaType == "application/json" ? ["type": "object"] : ["type": "string"]
    case .unreadable: return [:]
    }
  }

  /// The media type of an answer of this shape.
  var mediaType: String { if case .octets(let mediaType) = self { mediaType } else { "application/json" } }
}
