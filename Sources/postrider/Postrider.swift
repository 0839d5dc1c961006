import ArgumentParser

/// The program: every role and the administration of a running installation.
@main
struct Postrider: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "postrider", abstract: "Server-side mailbox synchronization.",
    groupedSubcommands: [CommandGroup(name: "Administration:", subcommands: Administration.commands)])
}
