import AdminServer
import ArgumentParser
import Testing

@testable import postrider

@Suite("Help of the commands")
struct FieldHelpTests {
  struct Option: Sendable, CustomTestStringConvertible {
    var name: String
    var route: String
    var field: String
    var help: String
    var testDescription: String { "\(name) for \(route)" }
  }

  static let options: [Option] =
    [
      ("--interval", "minimumPollingIntervalMinutes"), ("--max-connections", "maximumConcurrentConnections"),
      ("--timeout", "connectionTimeoutSeconds"), ("--max-failed-logins", "maximumFailedLogins"), ("--name", "name"),
    ].flatMap { name, field in
      [
        Option(
          name: name, route: "POST /api/v1/server-profiles", field: field, help: ProfileCreate.helpMessage(columns: 400)
        ),
        Option(
          name: name, route: "PATCH /api/v1/server-profiles/{id}", field: field,
          help: ProfileEdit.helpMessage(columns: 400)),
      ]
    } + [
      Option(
        name: "--weight", route: "PATCH /api/v1/server-profiles/{id}", field: "weight",
        help: ProfileEdit.helpMessage(columns: 400)),
      Option(
        name: "--user-name", route: "PATCH /api/v1/mailboxes/{id}", field: "userName",
        help: MailboxEdit.helpMessage(columns: 400)),
    ]

  @Test("ranges are those of the API's document", arguments: options)
  func ranges(_ option: Option) throws {
    let route = try #require(AdminServer.routes.first { "\($0.method) \($0.path)" == option.route })
    guard case .object(let fields)? = route.body else {
      Issue.record("\(option.route) takes no object")
      return
    }
    let field = try #require(fields.first { $0.name == option.field })
    let bounds = try #require(field.bounds)
    // The text follows on the same line, or on the next below a long name.
    let lines = option.help.split(separator: "\n")
    let index = try #require(lines.firstIndex { $0.hasPrefix("  \(option.name) <") })
    let text = lines[index..<min(index + 2, lines.count)].joined(separator: " ")
    #expect(text.contains("\(bounds.lowerBound) to \(bounds.upperBound)"), "\(text)")
  }
}
