import HTTPTypes
import Hummingbird
import PostriderCore
import Testing

@testable import AdminServer

/// The OpenAPI document, read back as a client reads it. Every answer of every test here is held against it.
struct DocumentedAPI: Sendable {
  static let shared = DocumentedAPI(AdminServer.openAPI(AdminServerConfiguration()))

  let document: JSONValue

  init(_ text: String) {
    do {
      document = try JSONParser.parse(Array(text.utf8))
    } catch {
      Issue.record("The document is not JSON: \(error)")
      document = .null
    }
  }

  /// What a reference leads to; the value itself when it is none.
  func resolved(_ value: JSONValue) -> JSONValue {
    guard case .string(let reference)? = value["$ref"] else { return value }
    return reference.split(separator: "/").dropFirst().reduce(document) { $0[String($1)] ?? .null }
  }

  private func operation(_ method: HTTPRequest.Method, _ path: String) -> JSONValue? {
    let parts = path.split(separator: "/")
    let fitting = (document["paths"]?.members ?? []).filter { member in
      let template = member.key.split(separator: "/")
      return template.count == parts.count && zip(template, parts).allSatisfy { $0.hasPrefix("{") || $0 == $1 }
    }
    // A path of its own goes before a name in braces.
    let path = fitting.first { !$0.key.contains("{") } ?? fitting.first
    return path?.value[method.rawValue.lowercased()]
  }

  /// Notes what an answer has that the document does not know.
  func check(_ answer: TestAPI.Answer, to method: HTTPRequest.Method, _ uri: String) {
    checkHeaders(answer, uri)
    let path = String(uri.prefix { $0 != "?" })
    // Neither an unknown path nor a method that a path does not have is in a document.
    guard method != .head, let operation = operation(method, path) else { return }
    let place = "\(method.rawValue) \(path) \(answer.status)"
    guard let response = operation["responses"]?[String(answer.status)].map({ resolved($0) }) else {
      Issue.record("\(place): this status is not in the document; add it in RouteDescription.problemStatuses")
      return
    }
    let mediaType = (answer.headers[.contentType] ?? "").split(separator: ";").first.map(String.init) ?? ""
    guard let content = response["content"] else {
      if !answer.body.isEmpty { Issue.record("\(place): has a body, which the document does not know") }
      return
    }
    guard let media = content[mediaType] else {
      Issue.record("\(place): \(mediaType) is not in the document")
      return
    }
    if mediaType.hasSuffix("json"), let schema = media["schema"] { checkJSON(answer, schema, response, place) }
    for header in [HTTPField.Name.eTag, .location] where answer.headers[header] != nil {
      #expect(response["headers"]?[header.rawName] != nil, "\(place): \(header.rawName) is not in the document")
    }
  }

  private func checkJSON(_ answer: TestAPI.Answer, _ schema: JSONValue, _ response: JSONValue, _ place: String) {
    guard let body = try? JSONParser.parse(answer.body) else {
      Issue.record("\(place): the body is not JSON")
      return
    }
    for problem in problems(of: body, schema, at: "") { Issue.record("\(place): \(problem)") }
    if case .string(let code)? = body["code"], body["detail"] != nil, case .string(let text)? = response["description"]
    {
      #expect(
        text.contains("`\(code)`"), "\(place): the code \(code) is not in ProblemCatalog; say there what it means")
    }
  }

  private func checkHeaders(_ answer: TestAPI.Answer, _ uri: String) {
    // A browser has nothing that it could add by itself to another site's request, nor may that site read an answer.
    for name in answer.headers.map(\.name.canonicalName)
    where name == "set-cookie" || name.hasPrefix("access-control-") {
      Issue.record("\(uri): answers with \(name)")
    }
    let wanted: [(HTTPField.Name, String)] = [
      (.xContentTypeOptions, "nosniff"), (.cacheControl, "no-store"), (.referrerPolicy, "no-referrer"),
      (.frameOptions, "DENY"), (.contentSecurityPolicy, "default-src 'none'; frame-ancestors 'none'; sandbox"),
    ]
    for (name, value) in wanted { #expect(answer.headers[name] == value, "\(uri): \(name.rawName)") }
    #expect(answer.headers[.requestID] != nil, "\(uri)")
  }

  /// Where a value is not of a schema. Stricter than a client: a field that is not documented is a problem too.
  func problems(of value: JSONValue, _ schema: JSONValue, at pointer: String) -> [String] {
    let schema = resolved(schema)
    guard case .string(let type)? = schema["type"] else { return ["\(pointer) has no schema"] }
    switch (type, value) {
    case ("string", .string(let text)):
      if case .array(let words)? = schema["enum"], !words.contains(value) {
        return ["\(pointer): \(text) is not listed"]
      }
      if schema["format"] == "date-time", APICoding.date(text) == nil { return ["\(pointer): \(text) is no date"] }
      return []
    case ("integer", .number(let text)): return Int64(text) == nil ? ["\(pointer): \(text) is not whole"] : []
    case ("number", .number), ("boolean", .boolean): return []
    case ("array", .array(let items)):
      guard let item = schema["items"] else { return ["\(pointer): items have no schema"] }
      return items.enumerated().flatMap { problems(of: $1, item, at: "\(pointer)/\($0)") }
    case ("object", .object(let members)):
      var found = members.flatMap { member -> [String] in
        let place = "\(pointer)/\(member.key)"
        guard let field = schema["properties"]?[member.key] ?? schema["additionalProperties"] else {
          return schema["properties"] == nil ? [] : ["\(place) is not in the document"]
        }
        return problems(of: member.value, field, at: place)
      }
      if case .array(let required)? = schema["required"] {
        for case .string(let name) in required where value[name] == nil {
          found.append("\(pointer)/\(name) is missing")
        }
      }
      return found
    default: return ["\(pointer): \(value.kind) where \(type) is documented"]
    }
  }
}

extension JSONValue {
  var members: [Member] { if case .object(let members) = self { members } else { [] } }
}
