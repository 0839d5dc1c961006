import PostriderCore

extension JSONShape {
  /// `UserDraft`.
  static let userDraft = JSONShape.object([
    Field("address", .string, isRequired: true), Field("name", .string), Field("role", choice(Role.self)),
  ])

  /// `UserChange`.
  static let userChange = JSONShape.object([
    Field("name", .string), Field("address", .string), Field("role", choice(Role.self)), Field("isActive", .boolean),
    Field("version", .identifier),
  ])

  private static let memberIDs = Field("memberIDs", .array(of: .identifier, count: 0...PeopleRules.maximumMembers))

  /// `SharedQueueDraft`.
  static let sharedQueueDraft = JSONShape.object([
    Field("address", .string, isRequired: true), Field("name", .string), Field("ownerID", .identifier), memberIDs,
  ])

  /// `SharedQueueChange`.
  static let sharedQueueChange = JSONShape.object([
    Field("name", .string), Field("address", .string), Field("isActive", .boolean), Field("ownerID", .identifier),
    memberIDs, Field("version", .identifier),
  ])

  /// `TokenDraft`.
  static let tokenDraft = JSONShape.object([
    Field("name", .string, isRequired: true), Field("role", choice(Role.self)), Field("userID", .identifier),
    Field("expiresAt", .date),
  ])

  /// A new password; without one it is taken away.
  static let passwordChange = JSONShape.object([Field("password", .secret), Field("currentPassword", .secret)])

  /// Who signs in.
  static let signInRequest = JSONShape.object([
    Field("organization", .string, isRequired: true), Field("address", .string, isRequired: true),
    Field("password", .secret, isRequired: true),
  ])
}
