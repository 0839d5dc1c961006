/// A parameter of a query, as data.
public struct QueryParameter: Hashable, Sendable {
  /// Its name.
  public let name: String
  /// What its value must look like, once decoded.
  public let shape: JSONShape
  /// Whether it must be there.
  public let isRequired: Bool
  /// What it means. Every parameter has one; a test looks.
  public let help: String
  /// The values of a number or the length of a text; `nil` for no bounds.
  public let bounds: ClosedRange<Int>?
  /// What counts when it is left out; `nil` for nothing, or what `help` says.
  public let standard: String?

  init(
    _ name: String, _ shape: JSONShape, isRequired: Bool = false, _ help: String, in bounds: ClosedRange<Int>? = nil,
    standard: String? = nil
  ) {
    self.name = name
    self.shape = shape
    self.isRequired = isRequired
    self.help = help
    self.bounds = bounds
    self.standard = standard
  }
}

extension QueryParameter: ExpressibleByStringLiteral {
  /// A parameter that means the same wherever it stands; one that is not known here has no help text yet.
  public init(stringLiteral name: String) {
    self = Self.common.first { $0.name == name } ?? QueryParameter(name, .string, "")
  }

  private static let common = [
    QueryParameter(
      "limit", .integer, "How many rows the page has at most.", in: 1...500, standard: "50"),
    QueryParameter(
      "cursor", .string, "The nextCursor of the page before, with the same filters; the first page without it.",
      in: 1...512),
    QueryParameter("mailbox", .identifier, "Only what belongs to the mailbox of this id."),
    QueryParameter("profile", .identifier, "Only what belongs to the server profile of this id."),
  ]
}
