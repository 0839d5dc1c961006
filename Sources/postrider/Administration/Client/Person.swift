import PostriderCore

/// What users and shared queues have in common on the command line.
protocol Person: Codable, Sendable {
  /// Below `/api/v1`: `/users`.
  static var path: String { get }
  /// `user`.
  static var noun: String { get }
  var number: Int64 { get }
  var name: String { get }
  var address: String { get }
  var isActive: Bool { get }
}

extension User: Person {
  static let path = "/users"
  static let noun = "user"
  var number: Int64 { id.value }
}

extension SharedQueue: Person {
  static let path = "/shared-queues"
  static let noun = "shared queue"
  var number: Int64 { id.value }
}

/// The part of `UserChange` and `SharedQueueChange` that says whether they are active.
private struct Activation: Encodable {
  var isActive: Bool
}

/// The answer of a verb that deletes.
struct DeletedAnswer: Codable {
  var deleted: Bool
}

extension Session {
  /// Finds people and shows each.
  func show<Somebody: Person>(_ names: [String], _ details: (Somebody) -> Details) async throws {
    var found: [Somebody] = []
    for name in names { found.append(try await Selection.person(name, api)) }
    try show(found) { details($0).rendered() }
  }

  /// Activates or deactivates them, and says how they are then.
  func activate<Somebody: Person>(_ type: Somebody.Type, _ names: [String], _ isActive: Bool) async throws {
    var changed: [Somebody] = []
    for name in names {
      let found: Somebody = try await Selection.person(name, api)
      changed.append(try await api.patch("\(type.path)/\(found.number)", Activation(isActive: isActive)))
    }
    try show(changed) { "\(Terminal.safe($0.address)) is \($0.isActive ? "active" : "inactive")." }
  }

  /// Deletes one, after a question; `with` names what goes too.
  func delete<Somebody: Person>(_ type: Somebody.Type, _ name: String, with rest: String = "", yes: Bool) async throws {
    let found: Somebody = try await Selection.person(name, api)
    let who = "the \(type.noun) \(Terminal.safe(found.address))"
    try Confirmation.ask(
      "Delete \(who)\(rest)?", yes: yes, refusal: "\(who) would be deleted: say --yes")
    let deleted: DeletedAnswer = try await api.post("\(type.path)/\(found.number)/delete", NoBody())
    if isJSON { return try printJSON(deleted) }
    try print("Deleted \(who).")
  }
}
