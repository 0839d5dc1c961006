import PostriderCore

extension JSONShape {
  /// `UserDraft`.
  static let userDraft = JSONShape.object([
    Field(
      "address", .string, isRequired: true, "Another e-mail address, unique in the organization.", in: 1...254,
      example: "support@example.com"), Field("name", .string, "The name that people see; the address when left out."),
    Field("role", choice(Role.self), "What the user may do; owner: only their own mailboxes."),
  ])

  /// `UserChange`.
  static let userChange = JSONShape.object([
    Field("name", .string, "The name that people see; the address when left out."),
    Field(
      "address", .string, "Another e-mail address, unique in the organization.", in: 1...254,
      example: "support@example.com"),
    Field("role", choice(Role.self), "What the user may do; owner: only their own mailboxes."),
    Field("isActive", .boolean, "An inactive one's mailboxes stop."),
    Field("version", .identifier, "The version that the change is meant for; refused when there is a newer one."),
  ])

  private static let memberIDs = Field(
    "memberIDs", .array(of: .identifier, count: 0...PeopleRules.maximumMembers),
    "Its members, all of them; users who see its mailbox as their own.")

  /// `SharedQueueDraft`.
  static let sharedQueueDraft = JSONShape.object([
    Field(
      "address", .string, isRequired: true, "Another e-mail address, unique in the organization.", in: 1...254,
      example: "support@example.com"), Field("name", .string, "The name that people see; the address when left out."),
    Field("ownerID", .identifier, "The user it belongs to; whoever makes the request when left out of a new one."),
    memberIDs,
  ])

  /// `SharedQueueChange`.
  static let sharedQueueChange = JSONShape.object([
    Field("name", .string, "The name that people see; the address when left out."),
    Field(
      "address", .string, "Another e-mail address, unique in the organization.", in: 1...254,
      example: "support@example.com"), Field("isActive", .boolean, "An inactive one's mailboxes stop."),
    Field("ownerID", .identifier, "The user it belongs to; whoever makes the request when left out of a new one."),
    memberIDs,
    Field("version", .identifier, "The version that the change is meant for; refused when there is a newer one."),
  ])

  /// `TokenDraft`.
  static let tokenDraft = JSONShape.object([
    Field("name", .string, isRequired: true, "The name that people see; the address when left out."),
    Field("role", choice(Role.self), "What the user may do; owner: only their own mailboxes."),
    Field("userID", .identifier, "Whose token it is; one's own when left out."),
    Field("expiresAt", .date, "When it ends; never when left out."),
  ])

  /// A new password; without one it is taken away.
  static let passwordChange = JSONShape.object([
    Field("password", .secret, "The password."),
    Field("currentPassword", .secret, "The present password; needed to change one's own."),
  ])

  /// Who signs in.
  static let signInRequest = JSONShape.object([
    Field("organization", .string, isRequired: true, "The organization's name."),
    Field("address", .string, isRequired: true, "Another e-mail address, unique in the organization."),
    Field("password", .secret, isRequired: true, "The password."),
  ])
}
