import ArgumentParser
import FoundationEssentials
import PostriderCore

extension OutgoingPriority: ExpressibleByArgument {}
extension OutgoingState: ExpressibleByArgument {}

/// `postrider email send`
struct EmailSend: AdministrationCommand {
  static let configuration = CommandConfiguration(
    commandName: "send", abstract: "Send a message from a mailbox.",
    discussion: """
      Refused with the reason when the mailbox is not approved, tested and enabled for outgoing mail; --hold keeps the \
      message as a draft instead.
      Example: postrider email send --from a@example.com --to b@example.org --subject Hi --text-file hello.txt
      """)

  @Option(help: ArgumentHelp("The mailbox, by id, address or owner's name.", valueName: "mailbox"))
  var from: String
  @Option(help: ArgumentHelp("A recipient; give it again for more.", valueName: "address"))
  var to: [String]
  @Option(help: ArgumentHelp("A recipient of a copy; give it again for more.", valueName: "address"))
  var cc: [String] = []
  @Option(help: ArgumentHelp("A recipient that the message does not name.", valueName: "address"))
  var bcc: [String] = []
  @Option(help: "The subject.") var subject: String
  @Option(help: ArgumentHelp("The text, UTF-8; - for standard input.", valueName: "file"))
  var textFile: String
  @Option(help: ArgumentHelp("The same text as HTML, UTF-8.", valueName: "file"))
  var htmlFile: String?
  @Option(help: "Which messages of the mailbox go first: low, normal or high.") var priority: OutgoingPriority = .normal
  @Option(help: ArgumentHelp("Not before this time (ISO 8601).", valueName: "time"))
  var sendAfter: DateArgument?
  @Option(
    help: ArgumentHelp(
      "Your own key: a second send with it answers with the first message and sends nothing.", valueName: "key"))
  var idempotencyKey: String?
  @Flag(help: "Keep it as a draft; postrider email outgoing retry sends it.") var hold = false
  @OptionGroup(title: "Connection and output") var options: ClientOptions

  /// The API takes no larger body.
  private static let maximumOctets = 900_000

  func execute(_ session: Session) async throws {
    let mailbox = try await Selection.mailbox(from, session.api)
    let draft = OutgoingDraft(
      mailboxID: mailbox.id, to: to, cc: cc, bcc: bcc, subject: subject, text: try Self.read(textFile),
      html: try htmlFile.map(Self.read), priority: priority, sendAfter: sendAfter?.date,
      idempotencyKey: idempotencyKey, hold: hold)
    let email: OutgoingEmail = try await session.api.post("/outgoing-emails", draft)
    try session.show([email]) { "Message \($0.id) is \($0.state.rawValue)." }
  }

  private static func read(_ file: String) throws -> String {
    let octets: [UInt8]
    if file == "-" {
      octets = try Terminal.readInput(maximum: maximumOctets)
    } else {
      guard let data = try? Data(contentsOf: URL(filePath: file)) else {
        throw ClientError.failed("the file \(Terminal.safe(file)) cannot be read")
      }
      octets = Array(data)
    }
    guard octets.count <= maximumOctets else {
      throw ClientError.failed("a text has at most \(maximumOctets) octets")
    }
    guard let text = String(validating: octets, as: UTF8.self) else {
      throw ClientError.failed("\(Terminal.safe(file)) is not UTF-8")
    }
    return text
  }
}
