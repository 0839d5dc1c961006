import Hummingbird
import PostriderCore

extension APIRoutes {
  @Sendable static func showPrincipal(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(call.principal)
  }

  @Sendable static func listProfiles(_ services: APIServices, _ call: APICall) async throws -> Response {
    let page = try call.readQuery { $0.page() }
    return try call.answer(try await services.store.profiles(page, for: call.principal))
  }

  @Sendable static func createProfile(_ services: APIServices, _ call: APICall) async throws -> Response {
    let resolved = try services.profileRules.resolve(try call.decode(ProfileDraft.self))
    let profile = try await services.store.createProfile(resolved, by: call.principal)
    return try call.answer(
      CreatedProfile(profile: profile, warnings: resolved.warnings),
      headers: [.location: "\(prefix)/server-profiles/\(profile.id)"])
  }

  @Sendable static func showProfile(_ services: APIServices, _ call: APICall) async throws -> Response {
    try call.answer(try await services.store.profile(try call.identifier(), for: call.principal))
  }

  @Sendable static func changeProfile(_ services: APIServices, _ call: APICall) async throws -> Response {
    let id: ProfileID = try call.identifier()
    let change = try call.decode(ProfileChange.self)
    try change.check()
    return try call.answer(
      try await services.store.updateProfile(id, change, rules: services.profileRules, by: call.principal))
  }
}

/// The fields of a profile and, beside them, what people should know about it.
struct CreatedProfile: Encodable {
  static let shape = AnswerShape.of(ServerProfile.self).adding("warnings", .list(of: .string), as: "CreatedProfile")

  let profile: ServerProfile
  let warnings: [String]

  private enum CodingKeys: CodingKey {
    case warnings
  }

  func encode(to encoder: any Encoder) throws {
    try profile.encode(to: encoder)
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(warnings, forKey: .warnings)
  }
}
