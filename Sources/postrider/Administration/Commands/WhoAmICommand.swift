import ArgumentParser
import PostriderCore

/// `postrider whoami`
struct WhoAmICommand: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "whoami", abstract: "Show whose token is used and which API answers.",
    discussion: "Example: postrider whoami")

  @OptionGroup(title: "Connection and output") var options: ClientOptions

  func execute(_ session: Session) async throws {
    let principal: Principal = try await session.api.get("/whoami")
    if session.isJSON { return try session.printJSON(principal) }
    var details = Details()
    details.add("name", principal.name)
    details.add("user", "\(principal.userID)")
    details.add("role", principal.role.rawValue)
    details.add("organization", "\(principal.organizationID)")
    details.add("API", "\(session.api.settings.url) (from \(session.api.settings.source))")
    try session.print(details.rendered())
  }
}
