import ArgumentParser

/// The program: every role and the administration of a running installation.
@main
struct Postrider: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "postrider", abstract: "Server-side mailbox synchronization.",
    discussion: """
      Exit codes: 0 done, 1 failed or refused, 64 wrong call, 69 the API or what it needs cannot be reached.
      """,
    groupedSubcommands: [CommandGroup(name: "Administration", subcommands: Administration.commands)])
}
