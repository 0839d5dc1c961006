import PostriderCore

// Filled in by the parts that follow.
extension PostgresStore {
  private var later: StoreError { .schema(reason: "not there yet") }
  /// Changes a profile.
  public func updateProfile(
    _ id: ProfileID, _ change: ProfileChange, by principal: Principal
  ) async throws -> ServerProfile { throw later }
  /// Changes a mailbox.
  public func updateMailbox(
    _ id: MailboxID, _ change: MailboxChange, by principal: Principal
  ) async throws -> Mailbox { throw later }
  /// Pauses or resumes.
  public func setPaused(_ paused: Bool, _ scope: PauseScope, by principal: Principal) async throws { throw later }
  /// The pauses in force.
  public func pauses(_ page: PageRequest, for principal: Principal) async throws -> Page<Pause> { throw later }
  /// Poison jobs, oldest first.
  public func setAsideJobs(_ page: PageRequest, for principal: Principal) async throws -> Page<SetAsideJob> {
    throw later
  }
  /// Lets poison jobs run again.
  public func releaseJobs(_ jobs: [JobID], by principal: Principal) async throws -> [JobID] { throw later }
  /// What happened lately on each profile.
  public func profileActivity(for principal: Principal) async throws -> [ProfileActivity] { throw later }
  /// Asks for a repair of the queue.
  public func requestRepair(by principal: Principal) async throws -> RepairRequest { throw later }
  /// A repair that was asked for.
  public func repairRequest(_ id: Int64, for principal: Principal) async throws -> RepairRequest { throw later }
}
