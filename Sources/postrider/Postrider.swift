import ArgumentParser
import Foundation

/// The one binary: every role of a deployment and the administration of it.
@main
struct Postrider: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "postrider",
    abstract: "Self-hosted server-side synchronization of mailboxes.",
    discussion: """
      Try it:            postrider dev --sandbox
      Run it for real:   postrider migrate, then any number of postrider scheduler, worker and api
      Administer it:     postrider profile, mailbox, alert, run, email, queue, settings
      Look for trouble:  postrider analyze ADDRESS --incoming HOST, postrider doctor
      Complete words:    source <(postrider --generate-completion-script bash); also zsh and fish
      """,
    version: Version.text,
    groupedSubcommands: [
      CommandGroup(name: "Try it", subcommands: [DevCommand.self]),
      CommandGroup(
        name: "Roles of a deployment",
        subcommands: [
          MigrateCommand.self, InitCommand.self, TokenCommand.self, SchedulerCommand.self, WorkerCommand.self,
          APICommand.self,
        ]),
      CommandGroup(name: "Administration", subcommands: Administration.commands),
      CommandGroup(name: "Diagnosis", subcommands: [AnalyzeCommand.self, DoctorCommand.self]),
      CommandGroup(
        name: "Operation",
        subcommands: [
          KeysCommand.self, ConfigCommand.self, HealthCommand.self, BenchCommand.self, CapacityCommand.self,
        ]),
    ])

  /// Ends with the exit codes of sysexits.h where they say more than 1.
  static func main() async {
    unblockSignals()
    do {
      var command = try parseAsRoot()
      if var asynchronous = command as? any AsyncParsableCommand {
        try await asynchronous.run()
      } else {
        try command.run()
      }
    } catch let problems as Settings.Problems {
      writeError("\(problems)")
      Self.exit(withError: ExitCode(78))
    } catch let error as ServiceUnreachable {
      writeError("error: \(error)")
      Self.exit(withError: ExitCode(69))
    } catch {
      Self.exit(withError: error)
    }
  }
}

/// A parent may hand down blocked signals; then Ctrl-C would do nothing and the end of a child would never be seen.
private func unblockSignals() {
  var none = sigset_t()
  sigemptyset(&none)
  pthread_sigmask(SIG_SETMASK, &none, nil)
}

/// What this build calls itself.
enum Version {
  static let text = "0.1.0"
}
