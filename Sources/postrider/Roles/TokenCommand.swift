import ArgumentParser
import PostgresStore
import PostriderCore

extension Role: ExpressibleByArgument {}

/// `postrider token`
struct TokenCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "token", abstract: "The tokens that people and programs use the API with.",
    subcommands: [Create.self, TokenIssue.self, TokenList.self, TokenRevoke.self])

  /// `postrider token create`
  struct Create: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Makes a further token of an organization and prints it.",
      discussion: """
        Whoever has a token makes further ones with `postrider token issue`. This one needs none, but the database as `postrider init` does: POSTRIDER_DATABASE_MIGRATE_URL where given, else \
        POSTRIDER_DATABASE_URL. The token is shown once; only its hash is stored. Whoever the address belongs to is \
        entered when not known yet; a program gets an address of its own.

        The first token of an administrator is called `bootstrap`. Where it is lost, this makes another in its place:
          postrider token create --organization Example --role administrator --address ann@example.com \
        --name bootstrap --replace

        Example: postrider token create --organization Example --role reader --address scale@example.com --name keda
        """)

    @OptionGroup var process: RoleOptions

    @Option(name: .long, help: "The organization's name.")
    var organization: String

    @Option(name: .long, help: "What whoever has the token may do.")
    var role: Role

    @Option(name: .long, help: "The e-mail address of the person or program that it is for.")
    var address: String

    @Option(name: .long, help: "What the token is for (default: the role).")
    var name: String?

    @Flag(name: .long, help: "Revoke the tokens of this name that the address had before.")
    var replace = false

    func run() async throws {
      try await process.printToken(as: "token") { bootstrap in
        try await bootstrap.createToken(
          organization: organization, address: address, role: role, name: name ?? role.rawValue, replaces: replace)
      }
    }
  }
}
