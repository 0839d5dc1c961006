#if DEBUG
  import FoundationEssentials
  import PostriderCore

  /// Mistakes that the fault suite asks for, to see that it notices them. Only debug builds can make them.
  enum Mistakes {
    /// Leases are ended before the outcome is committed (`MISTAKE=complete-before-commit`).
    static let completeBeforeCommit = ProcessInfo.processInfo.environment["MISTAKE"] == "complete-before-commit"

    /// Ends a lease too early.
    static func end(_ lease: Lease, in queue: any JobQueue) async {
      // The mistake is all that counts; whether the queue could be told does not.
      _ = try? await queue.complete([lease])
    }
  }
#endif
