import ArgumentParser

/// `postrider queue …`
struct QueueCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "queue", abstract: "The job queue: watch it, pause it, mend it.",
    subcommands: [
      QueueStats.self, QueueTop.self, QueueInspect.self, QueuePause.self, QueueResume.self, QueuePauses.self,
      QueuePoison.self, QueueRepair.self,
    ])
}
