import HTTPTypes
import Hummingbird
import PostriderCore

/// ETags and the conditions on them (RFC 9110 section 13).
///
/// A tag names the version of a thing and what was answered of it. Whoever changes it means the version; what sessions
/// write beside it, such as counters, is no reason to refuse. Whoever has a copy means all of it.
enum EntityTag {
  /// `"7-<hash>"` for the JSON of a thing with a version; `nil` for one without.
  static func of(_ body: [UInt8]) -> String? {
    guard let value = try? JSONParser.parse(body), case .number(let version)? = value["version"] else { return nil }
    // FNV-1a, 64 bits: equal content has an equal tag in every process.
    let hash = body.reduce(UInt64(0xcbf2_9ce4_8422_2325)) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
    return "\"\(version)-\(String(hash, radix: 36))\""
  }

  /// Whether a field If-None-Match names a tag; weakly compared.
  static func isNamed(_ tag: String, in field: String) -> Bool {
    tags(field).contains { $0 == "*" || $0 == tag || $0 == "W/" + tag }
  }

  /// The version that a field If-Match stands for; `nil` for any. Throws a problem for one that no version can match.
  static func version(in field: String) throws -> Int64? {
    let tags = tags(field)
    if tags == ["*"] { return nil }
    // Strongly compared: a weak tag matches nothing.
    let versions = Set(
      tags.compactMap { tag -> Int64? in
        guard tag.hasPrefix("\""), tag.hasSuffix("\""), tag.count > 2 else { return nil }
        return tag.dropFirst().dropLast().split(separator: "-").first.flatMap { Int64($0) }
      })
    guard versions.count <= 1 else {
      throw Problem.invalid([FieldProblem("header:If-Match", "not-allowed", "must name one version, not several")])
    }
    guard let version = versions.first, version > 0 else { throw Problem.preconditionFailed }
    return version
  }

  private static func tags(_ field: String) -> [String] { field.split(separator: ",").map { $0.trimmingSpaces() } }
}

extension Problem {
  static var preconditionFailed: Problem {
    Problem(
      .preconditionFailed, "stale",
      "If-Match names another version than the present one: it was changed by somebody else; read it again.")
  }
}

extension APIPipeline {
  /// A body that says in its field `version` what the field If-Match says.
  static func body(_ body: [UInt8], _ value: JSONValue?, of route: APIRoute, ifMatch field: String) throws -> [UInt8] {
    guard route.description.takesVersion else {
      throw Problem.invalid([
        FieldProblem("header:If-Match", "not-allowed", "there is no version to compare here; leave it out")
      ])
    }
    guard let version = try EntityTag.version(in: field) else { return body }
    switch value?["version"] {
    case .number(let own)?:
      guard Int64(own) == version else {
        throw Problem.invalid([FieldProblem("/version", "contradiction", "is another version than If-Match names")])
      }
      return body
    default:
      guard case .object(let members)? = value else { return body }
      // A null says nothing, and a key stands once.
      let rest = members.filter { $0.key != "version" }
      return Array(JSONValue.object(rest + [.init(key: "version", value: .number(String(version)))]).text.utf8)
    }
  }
}
